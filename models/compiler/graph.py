"""What follows from the shape of a network alone: who reads what, which values share a scale, and which keys ciphertexts are under."""

from dataclasses import dataclass

from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.simplify import readers


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One operation without its weights: what is computed from what, and where the user wrote it."""

    name: str
    place: str
    kind: type[ir.Operation]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


class Wiring:
    """The steps of a network and how they are connected.

    Attributes:
        group: by value, the group of values that share its delta.
        keys: by value, whether its ciphertexts are under the CKKS input key, and whether under the big key.
        sums: by value, whether it is made of a linear layer's sums rather than of levels (pixels, results of activations).
        owner: by activation, the convolution, dense layer or sum whose channels may be scaled for it alone; none if others read them.
    """

    def __init__(self, operations: list[ir.Operation], input_shape: tuple[int, ...]) -> None:
        self.steps = tuple(
            Step(name=o.name, place=o.place, kind=type(o), inputs=o.inputs, shape=o.shape) for o in operations
        )
        self.by_name = {step.name: step for step in self.steps}
        self.shape: dict[str, tuple[int, ...]] = {IMAGE: input_shape} | {step.name: step.shape for step in self.steps}
        counts = readers(operations)
        self.last_use = {name: step.name for step in self.steps for name in step.inputs}
        self.group: dict[str, str] = {IMAGE: IMAGE}
        self.keys: dict[str, tuple[bool, bool]] = {IMAGE: (True, False)}
        self.owner: dict[str, str | None] = {}
        self.sums: dict[str, bool] = {IMAGE: False}
        for step in self.steps:
            self.group[step.name] = step.name
            if issubclass(step.kind, ir.ReLU):
                self.keys[step.name] = (False, True)
                self.owner[step.name] = self._owner(step.inputs[0], counts)
                self.sums[step.name] = False
                continue
            for name in step.inputs:
                self._unite(step.name, name)
            under_input, under_big = (any(self.keys[name][key] for name in step.inputs) for key in range(2))
            self.keys[step.name] = (under_input, under_big or issubclass(step.kind, ir.MaxPool2d))
            linear = issubclass(step.kind, ir.Conv2d | ir.Linear)
            self.sums[step.name] = linear or any(self.sums[name] for name in step.inputs)

    def _unite(self, a: str, b: str) -> None:
        old, new = self.group[b], self.group[a]
        self.group = {name: new if group == old else group for name, group in self.group.items()}

    def _owner(self, name: str, counts: dict[str, int]) -> str | None:
        while counts[name] == 1 and name != IMAGE:
            step = self.by_name[name]
            if issubclass(step.kind, ir.Conv2d | ir.Linear | ir.Add):
                return name
            if not issubclass(step.kind, ir.MaxPool2d | ir.AvgPool2d):
                return None
            name = step.inputs[0]
        return None

    def free(self, step: Step, name: str) -> bool:
        """Whether a term of a sum is a linear layer whose scale the sum may choose, since nothing else reads it."""
        read_once = sum(other.inputs.count(name) for other in self.steps) == 1
        return read_once and name != IMAGE and issubclass(self.by_name[name].kind, ir.Conv2d | ir.Linear)
