"""Which values are one because they are computed in the same way from values that are: functions and sums of the states of a gated layer.

models.compiler.ties finds layers that use the same weights. What a network over time does with their results, step by step, is one, too:
the same function of one value, a linear layer of the same weights, the sum of the same values. A sum may have fewer terms at some steps,
as the state of an LSTM has at the first, where there is no state to keep.
"""

from collections import defaultdict
from collections.abc import Hashable

import torch
from torch import Tensor

from ciphershift.models.compiler import ir
from ciphershift.models.compiler.rewrite import readers

LINEAR = (ir.Conv2d, ir.Linear)
KNOWN = (ir.LookUp, *LINEAR)
OWNERS = (ir.Activation, ir.MaxPool2d, ir.AvgPool2d, ir.Affine)
ALIVE = 1e-4
"""Greatest weight of a channel beside the layer's greatest, below which it is pruned; such layers stay apart."""
POINTS = torch.linspace(-8.0, 8.0, 257)
"""Where functions are compared."""


def followers(
    operations: list[ir.Operation], classes: dict[str, str], of_input: dict[str, str], apart: set[str]
) -> dict[str, str]:
    """By name of each function, linear layer and sum of values that are in a class: its own class.

    ReLUs of such sums are not among them: what their integers stand for is known only once their inputs are placed. Nor is the last step.

    Args:
        operations: as they are simplified.
        classes: by name, those of layers with the same weights, of their sums and of the activations of these.
        of_input: the same of values that are places of the input.
        apart: names that are in no class.
    """
    keys: dict[str, Hashable] = {}
    one: dict[str, str] = {}
    while True:
        found, first = classes | of_input, dict[Hashable, str]()
        sums: dict[str, frozenset[str]] = {}
        for o in operations[:-1]:
            if o.name in found or o.name in apart or any(name not in found for name in o.inputs):
                continue
            terms = frozenset(found[name] for name in o.inputs)
            if o.name not in keys:
                keys[o.name] = _own(o)
            if keys[o.name] is None or len(terms) < len(o.inputs):
                continue
            name = first.setdefault((keys[o.name], terms), o.name)
            found[o.name] = one.get(name, name)
            if isinstance(o, ir.Add):
                sums[name] = terms
        known = len(one)
        for name, terms in sums.items():
            part = next((other for other, few in sums.items() if few < terms and other not in one), None)
            if name not in one and part is not None:
                one[name] = part
        if len(one) == known:
            return {name: found[name] for name in keys if name in found}


def unfit(
    operations: list[ir.Operation], classes: dict[str, str], of_input: dict[str, str], found: dict[str, str]
) -> set[str]:
    """Names of what ``followers`` found, given the same, that cannot be one.

    Of sums that miss terms at some steps, all terms must be known before any step is computed: what an integer stands for is, of functions,
    of what a sum gives its scale to, and of sums of these. A layer whose scale is chosen for what reads it needs one such reader at every
    step, or at none; a sum needs readers that are one.
    """
    number = of_input | classes | found
    members: dict[str, list[ir.Operation]] = defaultdict(list)
    for o in operations:
        if o.name in number:
            members[number[o.name]].append(o)
    several = {o.name: number[o.name] for group in members.values() if len(group) > 1 for o in group}
    known: dict[str, bool] = {}
    for o in operations:
        terms = all(known.get(name, False) for name in o.inputs) if isinstance(o, ir.Add) else isinstance(o, KNOWN)
        known[o.name] = o.name in several and terms
    by_name, owner = {o.name: o for o in operations}, _owners(operations)
    wrong: set[str] = set()
    for group in members.values():
        owners = {several.get(owner[o.name]) if o.name in owner else "" for o in group}
        if isinstance(group[0], ir.Add):
            owners -= {""}
        fits = len(owners) <= 1 and None not in owners and _same_terms(group, number, known, by_name)
        if len(group) > 1 and not fits:
            wrong |= {o.name for o in group if o.name in found}
    return wrong


def _same_terms(
    group: list[ir.Operation], number: dict[str, str], known: dict[str, bool], by_name: dict[str, ir.Operation]
) -> bool:
    """Whether sums that are one have the same terms at every step, or known ones and the same constant."""
    sums = [o for o in group if isinstance(o, ir.Add) and all(name in number for name in o.inputs)]
    terms = [{number[name] for name in o.inputs} for o in sums]
    most = max(terms, key=len, default=set())
    if all(each == most for each in terms):
        return True
    constants = [
        sum((linear.bias for n in o.inputs if isinstance(linear := by_name.get(n), LINEAR)), torch.zeros(o.shape[0]))
        for o in sums
    ]
    same = all(torch.allclose(constant, constants[0]) for constant in constants)
    return same and all(known[o.name] and each <= most for o, each in zip(sums, terms, strict=True))


def _owners(operations: list[ir.Operation]) -> dict[str, str]:
    """By linear layer and sum: the only operation that reads it, if it chooses its scale."""
    counts = readers(operations)
    reader = {name: o for o in operations for name in o.inputs if counts[name] == 1}
    found: dict[str, str] = {}
    for o in operations:
        after = reader.get(o.name)
        summed = isinstance(o, LINEAR) and isinstance(after, ir.Add)
        if after is not None and (summed or (isinstance(o, (*LINEAR, ir.Add)) and isinstance(after, OWNERS))):
            found[o.name] = after.name
    return found


def _own(o: ir.Operation) -> Hashable | None:
    """What an operation does, whatever it reads; none if it is no such operation, or has channels without weights."""
    match o:
        case ir.LookUp():
            return "function", o.shape, bytes_of(o)
        case ir.Add():
            return "sum", o.shape
        case ir.Linear() if o.mask is None and _alive(o.weight):
            return "dense", o.shape, o.weight.numpy().tobytes(), o.bias.numpy().tobytes()
        case ir.Conv2d() if _alive(o.weight):
            options = (o.weight.shape, o.stride, o.padding, o.groups)
            return "convolution", o.shape, options, o.weight.numpy().tobytes(), o.bias.numpy().tobytes()
    return None


def _alive(weight: Tensor) -> bool:
    """Whether all channels have weights, or each has one at most: taps have a scale of their own."""
    size = weight.flatten(1).abs()
    return taps(weight) or bool((size.amax(1) > ALIVE * size.max()).all())


def taps(weight: Tensor) -> bool:
    """Whether each channel of weights [O, I, ...] has one at most."""
    return bool(((weight != 0).flatten(1).sum(1) <= 1).all())


def bytes_of(o: ir.LookUp) -> bytes:
    """The function on some numbers, of each channel if they differ."""
    shape = (o.shape[0] if o.by_channel else 1, *[1] * (len(o.shape) - 1))
    grid = POINTS.view(-1, *[1] * len(shape)).expand(-1, *shape)
    return o.function(grid).nan_to_num().contiguous().numpy().tobytes()
