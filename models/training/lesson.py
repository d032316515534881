"""What one batch does to a network in a phase: images changed at random, loss, gradients, a step; all of it on the network's device."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.trace import evaluation_mode
from ciphershift.models.nn.exact import ExactNetwork
from ciphershift.models.nn.recurrent import Recurrent, contractive
from ciphershift.models.training.augment import cut_out, distort, shift_and_mirror
from ciphershift.models.training.capture import Captured
from ciphershift.models.training.muon import Muon, adam
from ciphershift.models.training.phase import Phase

SETTLING = 100
"""Batches by which statistics are taken again, once the weights are averages; a running statistic forgets in about 20."""
REMEMBERED = 500
"""Images to which a teacher answers at a time, before a phase."""
PLACED = 200
"""Steps on a GPU, and of a recurrent network, for which places on the torus are held."""


class Lesson:
    """Batches of one phase.

    Attributes:
        average: of each weight, if the phase wants averages.
        total: sum of the losses since it was last set to zero.
    """

    def __init__(
        self,
        network: nn.Module,
        phase: Phase,
        images: Tensor,
        labels: Tensor,
        *,
        teacher: nn.Module | None = None,
        public: nn.Module | None = None,
    ) -> None:
        """Takes the training set, uint8 [N, C, H, W] and int64 or float [N], on the network's device; see ``models.training.loop.fit``."""
        self.network, self.phase, self.images, self.labels = network, phase, images, labels
        self.teacher, self.public, self.device = teacher, public, images.device
        self._variance = labels.float().var(correction=0).clamp_min(1e-12)
        self._weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        parameters, rate, decay = self._weights, phase.learning_rate, phase.weight_decay
        self.optimizer: Muon | torch.optim.AdamW = (
            Muon(parameters, lr=rate, weight_decay=decay, unit_rows=phase.unit_rows)
            if phase.muon
            else adam(parameters, lr=rate, weight_decay=decay)
        )
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._contractive: list[Recurrent | Network] = list(contractive(network))
        if isinstance(network, Network):
            self._contractive.append(network)
        self.average = [weight.detach().clone() for weight in self._weights] if phase.average else []
        self._remembered = self._answers_to_all(teacher) if teacher is not None and phase.remembered else None
        self._chosen = torch.zeros(phase.batch, dtype=torch.int64, device=self.device)
        self._parity = torch.zeros((), dtype=torch.int64, device=self.device)
        self._distortion = torch.zeros((), device=self.device)
        self.total = torch.zeros((), device=self.device)
        self._captured = Captured(self._learn, self.device)
        self._steps = 0

    def learn(self, chosen: Tensor, epoch: int, progress: float) -> None:
        """One batch: the images with these indices, when this share of the phase is over."""
        self._set_rates(self.phase.factor(progress))
        self._distortion.fill_(self.phase.distortion * (1 - self.phase.fading * progress))
        self._choose(chosen, epoch)
        if (
            isinstance(self.network, Network)
            and self._steps % PLACED == 0
            and (self.device.type == "cuda" or self.network.wiring.ties)
        ):
            self.network.place()
        self._steps += 1
        self._captured.run()

    def freeze(self, order: Tensor | None) -> None:
        """Statistics stand still from now on; the weights become their averages before, if an order of images is given."""
        assert isinstance(self.network, Network | ExactNetwork), "only they have statistics of their own"
        if order is not None:
            self.take_average(order)
        self.network.freeze(True)
        self._captured.forget()

    def take_average(self, order: Tensor) -> None:
        """The weights become their averages, and statistics are taken again, unless they stand still, from the images in this order."""
        if not self.average:
            return
        with torch.no_grad():
            for weight, average in zip(self._weights, self.average, strict=True):
                weight.copy_(average)
        if isinstance(self.network, Network | ExactNetwork) and self.network.frozen:
            return
        self.network.train()
        for chosen in torch.split(order, self.phase.batch)[:SETTLING]:
            if len(chosen) == self.phase.batch:
                self._choose(chosen, 0)
                with torch.no_grad():
                    self._answer(self._given(self._changed()))
        if isinstance(self.network, Network) and self.network.placed is not None:
            self.network.place()

    @property
    def _regression(self) -> bool:
        return self.labels.is_floating_point()

    def _choose(self, chosen: Tensor, epoch: int) -> None:
        self._chosen.copy_(chosen)
        self._parity.fill_(epoch % 2)

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor

    def _changed(self) -> Tensor:
        batch = self.images[self._chosen].float() / 255
        phase = self.phase
        if phase.shift:
            mirrored = (self._chosen * 2654435761 // 65536 + self._parity) % 2 == 0 if phase.alternating else None
            batch = shift_and_mirror(batch, phase.shift, mirrored)
        if phase.cut_out:
            batch = cut_out(batch, phase.cut_out)
        if phase.distortion:
            batch = distort(batch, self._distortion)
        return batch

    def _given(self, images: Tensor) -> Tensor:
        """What the network is given: the images, or what the public part makes of them."""
        if self.public is None:
            return images
        given: Tensor = self.public(images)
        return given

    def _answer(self, images: Tensor) -> Tensor:
        """Logits, multiplied in bfloat16 if the phase is fused."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.phase.fused, cache_enabled=False):
            if self.phase.fused:
                images = images.contiguous(memory_format=torch.channels_last)
            logits: Tensor = self.network(images)
        return logits.float()

    def _learn(self) -> None:
        if isinstance(self.network, Network) and self.phase.loudness != (1.0, 1.0):
            self.network.loudness.uniform_(*self.phase.loudness)
        images = self._changed()
        labels = self.labels[self._chosen]
        given = self._given(images)
        outputs = self._answer(given)
        loss = self._loss(outputs, labels, self.phase.smoothing)
        if self.teacher is not None and self.phase.distilled:
            share = self.phase.distilled
            wanted = self._wanted(self.teacher, images) if self._remembered is None else self._remembered[self._chosen]
            loss = (1 - share) * loss + share * self._loss(outputs, wanted)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        for part in self._contractive:
            part.contract()
        if self.average:
            with torch.no_grad():
                torch._foreach_lerp_(
                    self.average, [weight.detach() for weight in self._weights], 1 - self.phase.average
                )
        self.total += loss.detach()

    def _loss(self, outputs: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy for classes or their probabilities; for numbers the squared error beside their variance, so that rates fit both."""
        if self._regression and wanted.dim() == 1:
            return functional.mse_loss(outputs[:, 0], wanted) / self._variance
        return functional.cross_entropy(outputs, wanted, label_smoothing=smoothing)

    def _wanted(self, teacher: nn.Module, images: Tensor) -> Tensor:
        """The teacher's probabilities, or numbers."""
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.phase.fused, cache_enabled=False)
        with torch.no_grad(), autocast, evaluation_mode(teacher):
            if self.phase.fused:
                images = images.contiguous(memory_format=torch.channels_last)
            answers = teacher(images).float()
        return answers[:, 0] if self._regression else functional.softmax(answers, dim=1)

    def _answers_to_all(self, teacher: nn.Module) -> Tensor:
        """What the teacher says of each training image as it is: the mean over the image and its mirror image."""
        return torch.cat(
            [
                (self._wanted(teacher, images) + self._wanted(teacher, images.flip(3))) / 2
                for images in (batch.float() / 255 for batch in torch.split(self.images, REMEMBERED))
            ]
        )

    def state_dict(self) -> dict[str, object]:
        """What an interrupted training goes on from."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from there."""
        self.network.load_state_dict(state["network"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))  # type: ignore[arg-type]
        for mine, given in zip(self.average, state["average"], strict=True):  # type: ignore[call-overload]
            mine.copy_(given)
