"""nn.RNN, nn.LSTM, nn.GRU and their cells as what they compute step by step: decompositions for torch.export.

Every step uses the same weights, which is how models.compiler.ties knows that they are one. The formulas are those of torch's documentation
of these classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

State = tuple[Tensor, ...]
Gate = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""Weights by the input and by the state, and their biases."""
Cell = tuple[int, Callable[[Tensor, State, list[Gate]], State]]
"""Number of gates, and the states after a step from its input [B, I] and the states before it, [B, H] each."""


def _sums(x: Tensor, h: Tensor, gate: Gate) -> Tensor:
    by_input, by_state, bias, state_bias = gate
    return functional.linear(x, by_input, bias) + functional.linear(h, by_state, state_bias)


def _plain(function: Callable[[Tensor], Tensor]) -> Cell:
    return 1, lambda x, state, gates: (function(_sums(x, state[0], gates[0])),)


def _lstm(x: Tensor, state: State, gates: list[Gate]) -> State:
    h, c = state
    write, keep, new, read = (_sums(x, h, gate) for gate in gates)
    c = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(new)
    return torch.sigmoid(read) * torch.tanh(c), c


def _gru(x: Tensor, state: State, gates: list[Gate]) -> State:
    (h,) = state
    reset, update = (torch.sigmoid(_sums(x, h, gate)) for gate in gates[:2])
    by_input, by_state, bias, state_bias = gates[2]
    recalled = reset * functional.linear(h, by_state)
    if state_bias is not None:  # apart from the product: at the first step, without a state, it is all that there is
        recalled = recalled + functional.linear(reset, state_bias.diag())
    new = torch.tanh(functional.linear(x, by_input, bias) + recalled)
    return (new + update * (h - new),)


def _gates(weights: Sequence[Tensor | None], count: int) -> list[Gate]:
    """Weights of all gates, one below the other, as those of each."""
    pieces = [(None,) * count if weight is None else weight.chunk(count) for weight in weights]
    return list(zip(*pieces, *[(None,) * count] * (4 - len(pieces)), strict=True))


def _layers(
    cell: Cell,
    x: Tensor,
    initial: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """States of all steps, then the last ones of each layer and direction, as torch returns them."""
    (count, step), ways = cell, 1 + bidirectional
    each = len(params) // (num_layers * ways)  # with a projection of the states (proj_size of nn.LSTM) one more
    own = 4 if has_biases else 2
    x = x if batch_first else x.transpose(0, 1)
    last: list[State] = []
    for layer in range(num_layers):
        results = []
        for way in range(ways):
            number = layer * ways + way
            weights = params[each * number : each * (number + 1)]
            gates, projection = _gates(weights[:own], count), weights[own:]
            state, states = tuple(h[number] for h in initial), []
            steps = x.unbind(1)
            for one in reversed(steps) if way else steps:
                state = step(one, state, gates)
                if projection:
                    state = (functional.linear(state[0], projection[0]), *state[1:])
                states.append(state[0])
            results.append(torch.stack(states[::-1] if way else states, dim=1))
            last.append(state)
        x = torch.cat(results, dim=2) if bidirectional else results[0]
    final = [torch.stack([state[i] for state in last]) for i in range(len(initial))]
    return (x if batch_first else x.transpose(0, 1), *final)


def _module(cell: Cell) -> Callable[..., Any]:
    """Arguments of torch.ops.aten.rnn_relu.input and its like; dropout is off in evaluation mode."""

    def run(
        x: Tensor,
        initial: Any,
        params: Any,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        initial = [initial] if isinstance(initial, Tensor) else initial
        return _layers(cell, x, initial, params, has_biases, num_layers, bidirectional, batch_first)

    return run


def _single(cell: Cell) -> Callable[..., Any]:
    """Arguments of torch.ops.aten.rnn_relu_cell and its like."""

    def run(x: Tensor, state: Any, *weights: Tensor | None) -> Any:
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        result = cell[1](x, states, _gates(weights, cell[0]))
        return result[0] if len(result) == 1 else result

    return run


_OPS = torch.ops.aten
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _OPS.rnn_relu.input: _module(_plain(torch.relu)),
    _OPS.rnn_tanh.input: _module(_plain(torch.tanh)),
    _OPS.lstm.input: _module((4, _lstm)),
    _OPS.gru.input: _module((3, _gru)),
    _OPS.rnn_relu_cell.default: _single(_plain(torch.relu)),
    _OPS.rnn_tanh_cell.default: _single(_plain(torch.tanh)),
    _OPS.lstm_cell.default: _single((4, _lstm)),
    _OPS.gru_cell.default: _single((3, _gru)),
}
