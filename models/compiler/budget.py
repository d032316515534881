"""Choices of a conversion by what they cost and what they lose: the first ones that keep to stated limits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from ciphershift.errors import OverBudgetError
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto import timing
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.network import Network

OTHERS = ((4, 31), (3, 31), (6, 31), (6, 63), (3, 63))
"""Exponents and levels that are tried after those that were asked for; all cost the same time. Small weights amplify less noise."""
SETS = tuple(params.name for params in parameter_sets.SETS.values() if not params.is_toy and params.bodies == 1)
"""That networks are made for; one whose look-ups share masks stands in for these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What a conversion leaves open: name of the parameter set, powers of two of a weight, greatest integer of an activation."""

    params: str
    exponents: int
    levels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits, None where there is none.

    Attributes:
        max_seconds: predicted, of the server for one sample, with ``threads`` threads of this machine.
        max_drop: points (hundredths) that may be lost.
    """

    max_seconds: float | None = None
    max_drop: float | None = None
    threads: int = 1


def within(
    budget: Budget, first: Choice, make: Callable[[Choice], Network], drop: Callable[[Network], float]
) -> Network:
    """The network of the fastest choice that loses little enough; without such a limit, of those that are fast enough the best.

    Of sets with one polynomial size, whose noise is about the same, the fastest one is taken.

    Args:
        budget: the limits.
        first: is tried before all others, if its set is fast enough.
        make: converts.
        drop: points that a network loses.

    Raises:
        OverBudgetError: by how much the limits are missed.
    """
    start, best, least = make(first), None, float("inf")
    seconds = _seconds(start, first, budget.threads)
    for choice in _in_order(first, seconds, budget):
        network = start if choice == first else make(choice)
        lost = drop(network)
        if lost < least:
            best, least = network, lost
        if budget.max_drop is not None and lost <= budget.max_drop:
            return network
    if best is None or budget.max_drop is not None:
        raise _missed(budget, seconds, least)
    return best


def _seconds(network: Network, first: Choice, threads: int) -> dict[str, float]:
    """Predicted seconds for one sample under each set; tables and weights cost the same whatever they hold."""
    classes = {part.name: tuple(map(str, range(prod(part.shape)))) for part in network.parts}
    program = export(network.eval(), name="priced", version="0", params=parameter_sets.DEFAULT, classes=classes)
    work, sets = cost.work(program), [parameter_sets.get(name) for name in dict.fromkeys((first.params, *SETS))]
    return {params.name: cost.seconds(work, params, timing.measure(params, threads)) for params in sets}


def _in_order(first: Choice, seconds: dict[str, float], budget: Budget) -> list[Choice]:
    """Choices that are fast enough: the set that was asked for, then the others, the fastest first; each with all numbers."""
    quickest: dict[int, str] = {}
    for name in sorted(SETS, key=seconds.__getitem__):
        quickest.setdefault(parameter_sets.get(name).polynomial_size, name)
    most = float("inf") if budget.max_seconds is None else budget.max_seconds
    allowed = [name for name in (first.params, *quickest.values()) if seconds[name] <= most]
    numbers = ((first.exponents, first.levels), *OTHERS)
    every = [replace(first, params=name, exponents=e, levels=n) for name in allowed for e, n in numbers]
    return list(dict.fromkeys(every))


def _missed(budget: Budget, seconds: dict[str, float], least: float) -> OverBudgetError:
    fastest = min(seconds, key=seconds.__getitem__)
    if least == float("inf"):
        assert budget.max_seconds is not None, "without a limit of time something was tried"
        return OverBudgetError(
            f"one sample takes {seconds[fastest]:.2f} s under the fastest parameter set, {fastest}, predicted for {budget.threads} threads "
            f"of this machine: {seconds[fastest] - budget.max_seconds:.2f} s more than max_seconds = {budget.max_seconds:g}; use more "
            "threads, or a module with fewer values before its activations (ciphershift check lists them)"
        )
    assert budget.max_drop is not None, "without a limit of the drop the best network is given"
    return OverBudgetError(
        f"the best conversion loses {least:.2f} points: {least - budget.max_drop:.2f} more than max_drop = {budget.max_drop:g}; "
        f"{'allow more seconds, ' if budget.max_seconds is not None else ''}train the network on (fine_tune), or allow a larger drop"
    )
