"""Which values are one because they are computed in the same way from values that are: functions and sums of the states of a gated layer.

models.compiler.ties finds layers that use the same weights. What a network over time does with their results, step by step, is one, too:
the same function of one value, the same one tap of it, the sum of the same values. A sum may have fewer terms at some steps, as the state
of an LSTM has at the first, where there is no state to keep.
"""

from collections import defaultdict
from collections.abc import Hashable

import torch

from ciphershift.models.compiler import ir
from ciphershift.models.compiler.rewrite import readers

LINEAR = (ir.Conv2d, ir.Linear)
KNOWN = (ir.LookUp, *LINEAR)
OWNERS = (ir.Activation, ir.MaxPool2d, ir.AvgPool2d, ir.Affine)
POINTS = torch.linspace(-8.0, 8.0, 257)
"""Where functions are compared."""


def followers(
    operations: list[ir.Operation], classes: dict[str, str], of_input: dict[str, str], apart: set[str]
) -> dict[str, str]:
    """By name of each look-up, linear layer and sum of values that are in a class: its own class.

    Args:
        operations: as they are simplified.
        classes: by name, those of layers with the same weights, of their sums and of the activations of these.
        of_input: the same of values that are places of the input.
        apart: names that are in no class.
    """
    keys = {o.name: own for o in operations if o.name not in classes and (own := _own(o)) is not None}
    one: dict[str, str] = {}
    while True:
        found, first = classes | of_input, dict[Hashable, str]()
        sums: dict[str, frozenset[str]] = {}
        for o in operations:
            if o.name not in keys or o.name in apart or any(name not in found for name in o.inputs):
                continue
            terms = frozenset(found[name] for name in o.inputs)
            if len(terms) < len(o.inputs):
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


def unfit(operations: list[ir.Operation], found: dict[str, str], classes: dict[str, str]) -> set[str]:
    """Names of what ``followers`` found that cannot be one.

    Of sums that miss terms at some steps, all terms must be known before any step is computed: what an integer stands for is, of functions,
    of what a sum gives its scale to, and of sums of these. A layer or a sum whose scale is chosen for what reads it needs one such reader.
    """
    number = classes | found
    members: dict[str, list[ir.Operation]] = defaultdict(list)
    for o in operations:
        if o.name in number:
            members[number[o.name]].append(o)
    several = {o.name: number[o.name] for group in members.values() if len(group) > 1 for o in group}
    known: dict[str, bool] = {}
    for o in operations:
        terms = all(known.get(name, False) for name in o.inputs) if isinstance(o, ir.Add) else isinstance(o, KNOWN)
        known[o.name] = o.name in several and terms
    owner = _owners(operations)
    wrong: set[str] = set()
    for group in members.values():
        owners = {several.get(owner[o.name]) for o in group if o.name in owner}
        if len(group) > 1 and not (_same_terms(group, number, known) and len(owners) <= 1 and None not in owners):
            wrong |= {o.name for o in group if o.name in found}
    return wrong


def _same_terms(group: list[ir.Operation], number: dict[str, str], known: dict[str, bool]) -> bool:
    """Whether sums that are one have the same terms at every step, or known ones."""
    sums = [o for o in group if isinstance(o, ir.Add) and all(name in number for name in o.inputs)]
    terms = [{number[name] for name in o.inputs} for o in sums]
    most = max(terms, key=len, default=set())
    return all(each == most for each in terms) or (
        all(known[o.name] for o in sums) and all(each <= most for each in terms)
    )


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
    """What an operation does, whatever it reads; none if it is no such operation."""
    match o:
        case ir.LookUp():
            return "function", o.shape, bytes_of(o)
        case ir.Add():
            return "sum", o.shape
        case ir.Linear() if o.mask is None:
            return "dense", o.shape, o.weight.numpy().tobytes(), o.bias.numpy().tobytes()
        case ir.Conv2d():
            options = (o.weight.shape, o.stride, o.padding, o.groups)
            return "convolution", o.shape, options, o.weight.numpy().tobytes(), o.bias.numpy().tobytes()
    return None


def bytes_of(o: ir.LookUp) -> bytes:
    """The function on some numbers, of each channel if they differ."""
    shape = o.shape if o.by_channel else tuple(1 for _ in o.shape)
    grid = POINTS.view(-1, *[1] * len(shape)).expand(-1, *shape)
    return o.function(grid).nan_to_num().contiguous().numpy().tobytes()
