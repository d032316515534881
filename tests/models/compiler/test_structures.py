"""Modules written in many ways become networks that compute the same, before anything is rounded."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import BadCalibrationError, NotEquivalentError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models import verification
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.drives import Drives
from ciphershift.models.compiler.equivalence import CLIPPING, require_heard
from ciphershift.models.compiler.export import export
from ciphershift.models.cost_report import check
from ciphershift.models.nn.activations import ReLU


class Net(nn.Module):
    """Parts, and what is done with them."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.compute = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


class Custom(nn.Conv2d):
    """A subclass, as users write them."""


class Options(nn.Module):
    """Arguments with default values, a check of the shape, a branch on an option."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))

    def forward(self, x: Tensor, mask: Tensor | None = None, double: bool = False) -> Tensor:
        assert x.shape[1] == 1
        if double:
            x = x + x
        return self.body(x if mask is None else x * mask)


def conv(inputs: int = 1, outputs: int = 4, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


def compiled(module: nn.Module) -> nn.Module:
    """Never called, so that nothing is compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch imports deprecated parts of its own
        wrapped: nn.Module = torch.compile(module)  # type: ignore[assignment]
    return wrapped


def flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def in_place(self: Any, x: Tensor) -> Tensor:
    y = self.c(x)
    kept = y
    y.relu_()
    return self.head(flat(F.hardtanh(self.d(y) + kept)))


def stacked(self: Any, a: Tensor, b: Tensor) -> Tensor:
    return self.head(F.relu(flat(torch.stack([a[:, :1], b[:, 1:]], dim=2)) - 0.5 * flat(a)))


def normalized(self: Any, x: Tensor) -> Tensor:
    return self.head(flat(F.relu(self.c((x - 0.13) / 0.31))))


def settled_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for values, low, high in ((norm.running_mean, -0.2, 0.3), (norm.running_var, 0.2, 1.5), (norm.bias, -0.3, 0.3)):
        assert values is not None
        nn.init.uniform_(values, low, high)
    nn.init.uniform_(norm.weight, -1.0, 1.0)  # of both signs
    return norm


def turning_norm(channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    nn.init.uniform_(norm.weight, -1.0, -0.5)
    nn.init.uniform_(norm.bias, -0.3, 0.3)
    return norm


def built(seed: int = 0) -> dict[str, nn.Module]:
    """Modules for images of one channel, 8 x 8."""
    torch.manual_seed(seed)
    head = nn.Linear
    return {
        "add with alpha": Net(
            lambda s, x: s.head(flat(F.relu(torch.add(s.c(x), s.d(x), alpha=4)))), c=conv(), d=conv(), head=head(144, 4)
        ),
        "in place": Net(in_place, c=conv(1, 4, 1), d=conv(4, 4, 1), head=head(256, 4)),
        "skip of sums": Net(
            lambda s, x: s.head(flat(F.hardtanh(s.d(F.relu(s.c(x))) + s.c(x)))),
            c=conv(1, 4, 1),
            d=conv(4, 4, 1),
            head=head(256, 4),
        ),
        "two kept sums": Net(
            lambda s, x: (lambda a, b: s.head(flat(F.relu(a + b)) + flat(F.relu(a)) + flat(F.relu(b))))(s.c(x), s.d(x)),
            c=conv(),
            d=conv(),
            head=head(144, 4),
        ),
        "gray to RGB": Net(
            lambda s, x: s.head(flat(F.relu(s.c(torch.cat([x, x, x], 1))))), c=conv(3), head=head(144, 4)
        ),
        "y + y": Net(lambda s, x: (lambda y: s.head(flat(F.relu(y + y))))(s.c(x)), c=conv(), head=head(144, 4)),
        "batch norm between activation and padding": Net(
            lambda s, x: s.head(flat(F.relu(s.d(s.norm(F.relu(s.c(x))))))),
            c=conv(),
            norm=settled_norm(4),
            d=conv(4, 4, padding=1),
            head=head(144, 4),
        ),
        "batch norm between average and padding": Net(
            lambda s, x: s.head(flat(F.relu(s.d(s.norm(F.avg_pool2d(torch.tanh(s.c(x)), 2)))))),
            c=conv(),
            norm=settled_norm(4),
            d=conv(4, 4, padding=1),
            head=head(36, 4),
        ),
        "scaled sums that are read twice": Net(
            lambda s, x: (
                lambda a, b: s.head(flat(F.relu(0.7 * a + b)) + flat(F.gelu(a - 0.1)) + flat(0.3 * F.relu(b)))
            )(s.c(x), s.d(x)),
            c=conv(),
            d=conv(),
            head=head(144, 4),
        ),
        "shifted activation in a sum that padding reads": Net(
            lambda s, x: (lambda a: s.head(flat(F.relu(s.d(a) + 2 * a))))(0.3 - F.elu(s.c(x))),
            c=conv(),
            d=conv(4, 4, padding=1),
            head=head(144, 4),
        ),
        "series with a batch norm that turns it around": Net(
            lambda s, x: s.head(flat(s.norm(F.relu(s.c(x.flatten(2)))) + torch.tanh(s.d(x.flatten(2))))),
            c=nn.Conv1d(1, 3, 3),
            d=nn.Conv1d(1, 3, 3),
            norm=turning_norm(3),
            head=head(186, 4),
        ),
        "part of joined images": Net(
            lambda s, x: s.head(
                flat(torch.cat([x.flatten(1), F.relu(s.c(x)).flatten(1)], 1)[:, 64:].reshape(-1, 4, 6, 6))
            ),
            c=conv(),
            head=head(144, 4),
        ),
        "sum of a list": Net(
            lambda s, x: s.head(flat(F.relu(sum([s.c(x), s.d(x)])))), c=conv(), d=conv(), head=head(144, 4)
        ),
        "cat of one tensor twice": Net(
            lambda s, x: s.head(flat(torch.cat([F.relu(s.c(x))] * 2, 1))), c=conv(), head=head(288, 4)
        ),
        "broadcast sum": Net(
            lambda s, x: s.head(flat(F.relu(s.d(x) + F.adaptive_avg_pool2d(F.relu(s.c(x)), 1)))),
            c=conv(),
            d=conv(),
            head=head(144, 4),
        ),
        "image plus average plus activation": Net(
            lambda s, x: s.head(flat(F.relu(F.relu(s.c(x)) + F.avg_pool2d(F.relu(s.c(x)), 3, 1, 1) + x))),
            c=conv(1, 4, 3, padding=1),
            head=head(256, 4),
        ),
        "size from a tensor": Net(
            lambda s, x: (lambda y: s.head(flat(F.avg_pool2d(y, y.size()[2:]))))(F.relu(s.c(x))),
            c=conv(),
            head=head(4, 4),
        ),
        "squeeze": Net(
            lambda s, x: s.head(F.adaptive_avg_pool2d(F.relu(s.c(x)), 1).squeeze(-1).squeeze(-1)),
            c=conv(),
            head=head(4, 4),
        ),
        "mean of means": Net(lambda s, x: s.head(F.relu(s.c(x)).mean(-1).mean(-1)), c=conv(), head=head(4, 4)),
        "clamp": Net(lambda s, x: s.head(flat(s.c(x).clamp(min=0))), c=conv(), head=head(144, 4)),
        "clamp to other bounds": Net(
            lambda s, x: s.head(
                flat(torch.cat([s.c(x).clamp(0.1, 0.4), s.c(x).clamp(max=0.2), s.c(x).clamp(min=-0.1)], 1))
            ),
            c=conv(),
            head=head(432, 4),
        ),
        "normalized in forward": Net(normalized, c=conv(), head=head(144, 4)),
        "options": Options(),
        "subclass": nn.Sequential(Custom(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
        "weight norm": nn.Sequential(
            nn.utils.parametrizations.weight_norm(conv()), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
        ),
        "synchronized batch norm": nn.SyncBatchNorm.convert_sync_batchnorm(
            nn.Sequential(conv(), settled_norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
        ),
        "compiled": compiled(nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))),
        "data parallel": nn.DataParallel(nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))),
        "unused branch": Net(
            lambda s, x: (s.aux(flat(F.relu(s.c(x)))), s.head(flat(F.relu(s.c(x)))))[1],
            c=conv(),
            aux=head(144, 7),
            head=head(144, 4),
        ),
        "a part called image": Net(lambda s, x: s.head(flat(F.relu(s.image(x)))), image=conv(), head=head(144, 4)),
        "batch norm of both signs after an activation": nn.Sequential(
            conv(1, 4, 3),
            nn.ReLU(),
            settled_norm(4),
            nn.Conv2d(4, 4, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 4),
        ),
        "dilated, grouped, strided": nn.Sequential(
            conv(1, 4, 3, dilation=2),
            nn.ReLU(),
            nn.Conv2d(4, 6, (1, 3), groups=2, stride=(1, 2)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 4),
        ),
        "padding modes": Net(
            lambda s, x: s.head(flat(F.relu(s.a(x) + s.b(x) + s.c(x) + s.d(F.pad(x, (0, 2, 1, 1)))))),
            a=conv(padding=1, padding_mode="reflect"),
            b=conv(padding=1, padding_mode="replicate"),
            c=conv(padding=1, padding_mode="circular"),
            d=conv(),
            head=head(256, 4),
        ),
        "even kernel, same size": nn.Sequential(
            conv(1, 4, 4, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
        ),
        "max-pools with all options": Net(
            lambda s, x: s.head(
                torch.cat(
                    [
                        flat(F.relu(F.max_pool2d(s.c(x), 2, 2, 0, 2))),
                        flat(F.max_pool2d(F.relu(s.c(x)), 3, 2, 1, ceil_mode=True)),
                        flat(F.adaptive_max_pool2d(F.relu(s.c(x)), (4, 3))),
                    ],
                    1,
                )
            ),
            c=conv(),
            head=head(4 * (4 + 16 + 12), 4),
        ),
        "average pools": Net(
            lambda s, x: s.head(
                torch.cat(
                    [
                        flat(F.avg_pool2d(F.relu(s.c(x)), 2, divisor_override=3)),
                        flat(F.adaptive_avg_pool2d(F.relu(s.c(x)), (3, 5))),
                    ],
                    1,
                )
            ),
            c=conv(),
            head=head(36 + 60, 4),
        ),
        "average pools whose windows differ": Net(
            lambda s, x: (
                lambda y: s.head(
                    torch.cat(
                        [
                            flat(F.avg_pool2d(y, 3, 2, 1, count_include_pad=False)),
                            flat(F.avg_pool2d(y, 4, 3, 1, ceil_mode=True)),
                            flat(F.avg_pool2d(y, 4, 3, 1, ceil_mode=True, divisor_override=5)),
                            flat(F.adaptive_avg_pool2d(y, (4, 5))),
                        ],
                        1,
                    )
                )
            )(F.relu(s.c(x))),
            c=conv(),
            head=head(4 * (9 + 9 + 9 + 20), 4),
        ),
        "transposed convolutions": Net(
            lambda s, x: s.head(flat(F.relu(s.b(F.relu(s.a(F.relu(s.c(x)))))))),
            c=conv(1, 4, 3, stride=2),
            a=nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2),
            b=nn.ConvTranspose2d(6, 2, 3, dilation=2, padding=3),
            head=head(16, 4),
        ),
        "upsampling and pixel shuffle": Net(
            lambda s, x: s.head(
                flat(F.relu(s.d(F.interpolate(F.relu(F.pixel_shuffle(s.c(x), 2)), scale_factor=2, mode="nearest"))))
            ),
            c=conv(1, 4, 3, stride=2),
            d=conv(1, 2, 3, stride=2),
            head=head(50, 4),
        ),
        "views and transposes": Net(
            lambda s, x: s.head(
                F.relu(s.c(x))
                .view(x.size(0), 2, 2, 36)
                .transpose(1, 2)
                .reshape(x.size(0), 4, 6, 6)
                .permute(0, 2, 3, 1)
                .flatten(1)
            ),
            c=conv(),
            head=head(144, 4),
        ),
        "chunks, slices and stacks": Net(
            lambda s, x: stacked(s, *F.relu(s.c(x)).chunk(2, dim=1)),
            c=conv(),
            head=head(72, 4),
        ),
        "linear on the last axis": Net(
            lambda s, x: s.head(flat(F.relu(s.d(F.relu(s.c(x)))))), c=conv(), d=nn.Linear(6, 5), head=head(120, 4)
        ),
        "linear bottleneck": Net(
            lambda s, x: (lambda y: s.head(flat(F.relu(s.d(y) + y))))(s.b(F.relu(s.a(x)))),
            a=conv(1, 6, 3),
            b=conv(6, 4, 1),
            d=nn.Sequential(conv(4, 8, 3, padding=1), nn.ReLU6(), conv(8, 8, 3, padding=1, groups=8), conv(8, 4, 1)),
            head=head(144, 4),
        ),
        "two linear layers in a row": nn.Sequential(
            conv(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 7), nn.Linear(7, 4)
        ),
        "arithmetic with constants": Net(
            lambda s, x: s.head(flat(F.relu(2 * (1 - s.c(x)) / 3 - 0.1) * 0.7 + 0.2)), c=conv(), head=head(144, 4)
        ),
        "vector": nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)),
        "series": Net(
            lambda s, x: s.head(
                flat(
                    F.relu(
                        s.b(F.max_pool1d(F.relu(s.a(x.flatten(1).unsqueeze(1))), 2))
                        + s.c(F.relu(s.a(x.flatten(1).unsqueeze(1)))[..., ::2])
                    )
                )
            ),
            a=nn.Conv1d(1, 4, 3, padding=2, dilation=2),
            b=nn.Conv1d(4, 4, 3, padding=1),
            c=nn.Conv1d(4, 4, 1),
            head=head(128, 4),
        ),
        # New ones go here, at the end, so that the weights of the others stay as they are.
        "matrix products with constant weights": Net(
            lambda s, x: torch.addmm(s.head.bias, F.relu(x @ s.c.weight.T).flatten(1), s.head.weight.T),
            c=nn.Linear(8, 6),
            head=head(48, 4),
        ),
        "einsum with constant weights": Net(
            lambda s, x: (
                torch.einsum("bi,oi->bo", flat(F.relu(torch.einsum("...i,io->...o", x, s.c.weight.T))), s.head.weight)
                + s.head.bias
            ),
            c=nn.Linear(8, 6),
            head=head(48, 4),
        ),
        "split and joined again": Net(
            lambda s, x: s.head(flat(torch.cat(F.relu(s.c(x)).split([1, 2, 1], dim=1)[::-1], 1))),
            c=conv(),
            head=head(144, 4),
        ),
    }


NAMES = list(built())
SAMPLES = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "compiled" else ()) for name in NAMES
    ],  # torch.compile takes long
)
def test_it_is_the_module_and_its_program_is_it(name: str) -> None:
    """`convert` holds every step against the module's own; ends of ramps, which clip few values, are all that may differ."""
    module = built()[name].eval()
    network = before_rounding(module, SAMPLES, levels=63, max_outside=2e-3).network
    with torch.no_grad():
        expected, found = getattr(module, "_orig_mod", module)(SAMPLES), network(SAMPLES)
    assert float((found - expected).abs().mean()) < 0.06 * float(expected.std())
    network.quantize(True)
    program = export(network, name="p", version="1", params="FAST_N512", classes=tuple("abcd"))
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    plain = simulate.plain(program, images) * program.output.scale
    with torch.no_grad():
        rounded = network(torch.tensor(images).float() / 255).numpy()
    # Biases become integers and float32 sums may fall on the other side of a rounding: few activations move by one level of 63.
    assert np.abs(plain - rounded).mean() < 0.1 * rounded.std() + 1e-6


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ((30,), (nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3))),
        ((2, 9), (nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3))),
        ((2, 4, 4), (nn.ZeroPad2d((0, 1, 1, 0)), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))),
    ],
)
def test_vectors_series_and_padded_images_are_evaluated_encrypted(
    shape: tuple[int, ...], body: tuple[nn.Module, ...]
) -> None:
    """Two samples, three logits each, compared with mean and deviation of 40 simulated runs: within five deviations."""
    torch.manual_seed(0)
    data = np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)
    network = convert(nn.Sequential(*body), torch.tensor(data).float() / 255, params="TOY_N128").eval()
    program = export(network, name="p", version="1", params="TOY_N128", classes=("a", "b", "c"))
    toy, rng = parameter_sets.get("TOY_N128"), np.random.default_rng(1)
    runs = np.stack([simulate.run(program, toy, data[:2], rng) for _ in range(40)])
    encrypted = np.stack(list(verification.encrypted_logits(program, data[:2], threads=1)))
    assert np.abs((encrypted - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (nn.Sequential(conv(), nn.ReLU()).half(), "float16"),
        (nn.Sequential(conv(), nn.ReLU()).to("meta"), "device meta"),
        (
            Net(lambda s, x: s.head(flat(torch.cat([F.relu(s.c(x))] * 2))), c=conv(), head=nn.Linear(144, 4)),
            "mixes the samples",
        ),
        (
            Net(lambda s, x: s.head(flat(F.relu(s.c(x)))) if x.sum() > 0 else x, c=conv(), head=nn.Linear(144, 4)),
            "cannot be traced",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Softmax(1), nn.Linear(9, 2)), "softmax"),
    ],
)
def test_what_cannot_be_converted_has_a_place_and_a_way_out(module: nn.Module, problem: str) -> None:
    findings = check(module, (1, 8, 8), params="TOY_N128").findings
    assert any(problem in finding.problem for finding in findings), findings
    assert all(finding.place and finding.instead and len(str(finding)) < 700 for finding in findings)


@pytest.mark.filterwarnings("ignore")  # torch advises against TorchScript; users have it
def test_modules_that_cannot_be_read_back_say_so() -> None:
    body = nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    exported = torch.export.export(body, (torch.zeros(2, 1, 8, 8),)).module()
    for module, what in ((torch.jit.script(body), "TorchScript"), (exported, r"torch.export")):
        (finding,) = check(module, (1, 8, 8), params="TOY_N128").findings
        assert what in finding.problem


@pytest.mark.parametrize("where", ["0.1.running_mean", "2.weight", "4.bias"])
def test_weights_that_are_not_finite_are_named(where: str) -> None:
    first = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    module = nn.Sequential(first, nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 5))
    tensor = module.get_buffer(where) if "running" in where else module.get_parameter(where).data
    tensor.view(-1)[0] = torch.nan
    with pytest.raises(UnsupportedLayerError, match=f"{where}: holds 1 values that are NaN"):
        convert(module, SAMPLES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((SAMPLES - 0.13) / 0.31, "put the normalization into the module"),
        (SAMPLES * 255, "inputs from 0 to 1"),
        ((SAMPLES * 255).byte(), "uint8"),
        (torch.where(SAMPLES > 0.99, torch.nan, SAMPLES), "NaN or infinite"),
        (SAMPLES[:0], "at least 3 samples"),
        (SAMPLES * 0, "all calibration data are 0"),
    ],
)
def test_calibration_data_that_do_not_fit_are_refused(data: Tensor, message: str) -> None:
    with pytest.raises(BadCalibrationError, match=message):
        convert(built()["clamp"], data)


def test_calibration_data_may_be_arrays_in_double_precision() -> None:
    module = built()["clamp"]
    tops = [convert(module, data).head.peak for data in (SAMPLES, SAMPLES.double(), SAMPLES.numpy())]
    assert torch.allclose(tops[0], tops[1])
    assert torch.allclose(tops[0], tops[2])


def test_a_channel_without_weights_keeps_its_constant() -> None:
    module: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        module[0].bias.copy_(torch.tensor([0.0, 0.8]))
        module[3].weight.fill_(1 / 128)
        module[3].bias.zero_()
    network = before_rounding(module, SAMPLES).network
    with torch.no_grad():
        assert torch.allclose(network(SAMPLES), module(SAMPLES), atol=0.01)  # the constant alone is 0.4


def test_flags_of_parts_are_left_as_they_were() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).train()
    module[1].eval()
    check(module, (1, 8, 8), params="TOY_N128")
    assert [part.training for part in module] == [True, False, True, True, True]


def test_a_step_that_was_read_wrongly_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure of the whole kind: whatever a reader overlooks, the comparison with the module does not."""
    from ciphershift.models.compiler import operators

    right = operators.READERS["add"]
    wrong = operators.READERS | {"add": lambda call, a, b, alpha=1: right(call, a, b)}
    monkeypatch.setattr(operators, "READERS", wrong)
    with pytest.raises(NotEquivalentError, match=r"test_structures.py:\d+ .*'add' differs by"):
        convert(built()["add with alpha"], SAMPLES)


def test_a_module_that_is_different_each_time_is_refused() -> None:
    module = Net(lambda s, x: s.head(F.relu(s.c(flat(x + torch.rand(()))))), c=nn.Linear(64, 8), head=nn.Linear(8, 2))
    with pytest.raises(NotEquivalentError, match="the same every time"):
        convert(module, SAMPLES)


def uneven(seed: int) -> Any:
    """The results of six channels are mixed behind a ReLU; one channel's sums are a fifth of the others'."""
    torch.manual_seed(seed)
    mixing: Any = Net(
        lambda s, x: s.head(flat(F.relu(torch.einsum("...i,io->...o", x, s.c.weight.T)))),
        c=nn.Linear(8, 6),
        head=nn.Linear(48, 4),
    )
    with torch.no_grad():
        mixing.c.weight[2] *= 0.2
    return mixing.eval()


@pytest.mark.parametrize("seed", range(5))
def test_channels_that_share_a_unit_share_a_ramp_that_all_of_them_can_reach(seed: int) -> None:
    module = uneven(seed)
    network = before_rounding(module, SAMPLES).network
    with torch.no_grad():
        expected = module(SAMPLES)
        assert (network(SAMPLES) - expected).abs().mean() < 0.03 * expected.std()
    ramps = [
        node.tops(turns) * node.std * turns
        for step, node in network.steps()
        if isinstance(node, ReLU)
        for turns in [network.torus().turns(step.inputs[0])]
    ]
    assert len(ramps) == 1  # no channel is far coarser on the torus than another one
    assert ramps[0].max() < 2.1 * ramps[0].min()


def test_outputs_that_clipping_changes_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is the module's own; only what they do together tells."""
    monkeypatch.setattr(Drives, "choose", lambda _self, _step, node, _x: node.drive.fill_(0.5))
    with pytest.warns(UserWarning, match=r"a correlation of 0\.8\d with the module's .* lower max_outside"):
        before_rounding(uneven(0), SAMPLES)


def test_outputs_that_have_nothing_to_do_with_the_modules_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(500, 4, generator=generator) + torch.arange(4) * 100 for _ in range(2))
    with pytest.raises(NotEquivalentError, match=r"head: .* a correlation of -?0\.0\d"):
        require_heard("head", one, other, CLIPPING)
    require_heard("head", one, one, CLIPPING)
    require_heard("head", one, torch.full((500, 4), 3.0), CLIPPING)  # outputs that never vary


def test_a_network_that_is_lost_in_noise_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the fault that makes sums too small beside the noise of a look-up."""
    monkeypatch.setattr(Drives, "choose", lambda self, step, node, x: node.drive.fill_(1e-3))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with pytest.warns(
        UserWarning, match=r"what rounding and the circuit's noise take leaves .* a correlation of 0\.[0-4]"
    ):
        convert(module, torch.rand(200, 1, 8, 8))


def test_a_channel_that_is_rarely_positive_is_heard() -> None:
    """A ReLU is clipped at a quantile of its positive inputs, too: here one in 400, which are all that the outputs depend on."""
    torch.manual_seed(0)
    module: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).eval()
    samples = torch.rand(480, 1, 8, 8) * (torch.rand(480, 1, 8, 8) < 0.005)
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.fill_(-0.5)
        expected, found = module(samples), before_rounding(module, samples, max_outside=1e-3).network(samples)
    assert (found - expected).pow(2).mean() < 0.01 * expected.var(0).mean()
