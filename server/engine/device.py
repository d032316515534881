"""The inside of a worker that computes on a device of torch; loaded only where the engine's URL asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, LweCiphertextList
from ciphershift.he_layers.evaluate import State
from ciphershift.he_layers.gpu import device
from ciphershift.he_layers.gpu import evaluate as on_device
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.server.engine.base import Task
from ciphershift.server.engine.checkpoint import Checkpoint
from ciphershift.server.engine.worker import Worker, load_bundle, read_bundle
from ciphershift.server.repository import Model
from ciphershift.server.settings import Settings


class DeviceWorker(Worker[DeviceKeys]):
    """Computes on the device that the engine's URL names; its keys are kept in the device's memory."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Finds the device and loads every model.

        Args:
            settings: of which device and models, and the bytes of keys to keep.
            threads: of the host, which expands keys; and of torch where the device is the CPU.

        Raises:
            ConfigurationError: there is no such device.
        """
        self._device = device.find(settings.engine_url.address, threads=threads)
        super().__init__(settings, threads)

    def _expand(self, task: Task, model: Model) -> DeviceKeys:
        keys = load_bundle(read_bundle(task), task, model.params).expand(self._threads)
        return DeviceKeys.load(keys, self._device, use_fused=self._settings.engine_url.fused)

    def _evaluate(
        self, model: Model, keys: DeviceKeys, images: Sequence[CkksCiphertext], start: State[LweCiphertextList] | None
    ) -> Iterator[evaluate.Progress]:
        assert start is None, "see _checkpoint"
        return on_device.run(model.program, keys, [[image] for image in images])

    def _images_together(self, model: Model) -> int:
        return on_device.images_together(model.program, self._device)

    def _checkpoint(self, task: Task, model: Model) -> Checkpoint:
        """The answers alone: a state holds rows of the kernel's circuit."""
        return replace(super()._checkpoint(task, model), state=None)
