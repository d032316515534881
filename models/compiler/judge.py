"""What a conversion loses: its answers and the module's against targets, or its answers against the module's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ciphershift.errors import BadCalibrationError
from ciphershift.models.compiler.inputs import logits_of
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.compiler.trace import BATCH, evaluation_mode
from ciphershift.models.training.metrics import Targets, r2, score

SEED = 0
"""Of the noise that is drawn: it is the same every time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A module, and the samples on which its conversions are compared with it.

    Attributes:
        module: what is converted.
        samples: [count, ...], as it takes them.
        targets: classes or numbers, [count]; None: the module's answers are what is to be met.
    """

    module: nn.Module
    samples: Tensor
    targets: Targets | None

    def drop(self, network: Network) -> float:
        """Points (hundredths of accuracy, or of explained variance) that the network loses.

        Raises:
            BadCalibrationError: there are targets, and the network has several outputs, or other ones than the targets are for.
        """
        with evaluation_mode(self.module), torch.no_grad():
            real = _batched(lambda part: self._module_answers(network, part), self.samples)
        with evaluation_mode(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            found = _batched(network, network.inputs.of_steps(self._steps(network)))
        single = len(network.parts) == 1 and len(network.parts[0].shape) == 1
        if self.targets is not None:
            _require_answered(self.targets, real.shape[1] if single else 0)
            return 100 * (score(real, self.targets) - score(found, self.targets))
        if single and real.shape[1] > 1:
            return 100 * (1 - score(found, real.argmax(1)))
        ends = np.cumsum([np.prod(part.shape, dtype=int) for part in network.parts])[:-1]
        pairs = zip(np.split(found, ends, axis=1), np.split(real, ends, axis=1), strict=True)
        return 100 * (1 - float(np.mean([r2(f - r.mean(0), r - r.mean(0)) for f, r in pairs])))

    def _module_answers(self, network: Network, samples: Tensor) -> Tensor:
        """What the module gives, all outputs one after the other, as logits."""
        outputs = [leaf for leaf in pytree.tree_leaves(self.module(samples.clone())) if isinstance(leaf, Tensor)]
        given = [logits_of(out, part.function) for out, part in zip(outputs, network.parts, strict=True)]
        return torch.cat([each.reshape(len(samples), -1) for each in given], dim=1)

    def _steps(self, network: Network) -> Tensor:
        samples = self.samples
        if network.stem:
            units = network.stem.scaled(network.stem.run(samples.numpy())).clip(0, 1)  # as clients send them
            samples = torch.tensor(np.rint(units * PIXEL_LEVELS) / PIXEL_LEVELS, dtype=torch.float32)
        return network.steps_of(samples)


def targets_of(given: Any, count: int) -> Targets:
    """Targets as int64 classes or float64 numbers, [count]. Raises BadCalibrationError."""
    array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    if array.dtype.kind not in "biuf":
        raise BadCalibrationError(f"the targets are {array.dtype}, no numbers; give the numbers of the classes")
    if array.ndim != 1:
        raise BadCalibrationError(f"the targets have shape {list(array.shape)}; give one for each sample, [count]")
    if len(array) != count:
        raise BadCalibrationError(f"there are {len(array)} targets for {count} samples; give one for each")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadCalibrationError("some targets are NaN or infinite; leave those samples out")
    return array.astype(np.float64) if array.dtype.kind == "f" else array.astype(np.int64)


def _require_answered(targets: Targets, outputs: int) -> None:
    if not outputs:
        raise BadCalibrationError(
            "the module has several outputs, or maps, and labels are for one vector: leave the validation data out, and max_drop is of "
            "what the outputs explain of the module's"
        )
    if targets.dtype.kind == "f":
        if outputs > 1:
            raise BadCalibrationError(
                f"the targets are fractions, for one output; the module has {outputs}: give whole numbers for classes"
            )
    elif (wrong := targets[(targets < 0) | (targets >= max(outputs, 2))]).size:
        raise BadCalibrationError(f"the targets hold class {wrong[0]}, and the module has {outputs} outputs")


def _batched(answer: Any, samples: Tensor) -> NDArray[np.float64]:
    return np.asarray(torch.cat([answer(part) for part in torch.split(samples, BATCH)]).double().numpy())
