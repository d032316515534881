"""Each variant of the ablation is trained and tested as its name says."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.benchmarks.networks import ablation
from ciphershift.benchmarks.networks.ablation import Polynomial, Variant
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.shift import ShiftWeights
from ciphershift.models.training.data import Split
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.pipeline import train_phase
from ciphershift.models.training.sets import Splits


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> Splits:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 256)
    images = (rng.integers(0, 60, (256, 1, 28, 28)) + 19 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(images=images, labels=labels)
    made = Splits(name="mnist", classes=tuple("0123456789"), train=split, validation=split, test=split)
    monkeypatch.setattr(Splits, "load", lambda name: made)
    short = Phase(epochs=1, learning_rate=1e-3, distortion=0.0)
    monkeypatch.setattr(ablation, "FLOAT_PHASE", short)
    monkeypatch.setattr(ablation, "NOISY_PHASE", short)
    return made


def trained(variant: Variant, splits: Splits, work: Path) -> torch.nn.Module:
    return ablation._trained(variant, splits, work, 1, lambda name, report: None)


@pytest.mark.slow
def test_a_variant_with_a_circuit_has_its_noise_and_its_weights(splits: Splits, tmp_path: Path) -> None:
    predicted = CircuitNoise.predicted(params.get(params.DEFAULT))
    float_weights = trained(Variant(noise=2.0), splits, tmp_path)
    assert isinstance(float_weights, Network)
    assert float_weights.noise is not None
    assert float_weights.noise.lookup == pytest.approx(2 * predicted.lookup)
    assert float_weights.noise.polynomial_size == predicted.polynomial_size
    assert not any(weights.quantized for weights in float_weights.of_type(ShiftWeights))
    shifted, clipped = (trained(Variant(exponents=2, noise=1.0, clips=on), splits, tmp_path) for on in (False, True))
    assert isinstance(shifted, Network) and isinstance(clipped, Network)
    for weights in shifted.of_type(ShiftWeights):
        assert set(weights.integer_weight().unique().tolist()) <= {-2.0, -1.0, 0.0, 1.0, 2.0}
    factors = [[weights.widening for weights in each.of_type(ShiftWeights)] for each in (shifted, clipped)]
    assert any(a is not None and b is not None and not torch.equal(a, b) for a, b in zip(*factors, strict=True))
    made = {path.stem for path in tmp_path.glob("*.pt")}
    assert [name for name in made if "clips" in name] == [Variant(exponents=2, noise=1.0, clips=True).name]


def test_what_is_said_of_a_training_is_what_it_does(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: dict[str, Phase] = {}

    def recorded(name: str, network: nn.Module, phase: Phase, *others: Any, **named: Any) -> None:
        phases[name] = phase
        if not isinstance(network, Network):
            train_phase(name, network, phase, *others, **named)

    monkeypatch.setattr(ablation, "train_phase", recorded)
    four = Variant(exponents=4, noise=1.0)
    for variant in (four, replace(four, averaged=True), replace(four, drawn=True), replace(four, clips=True)):
        trained(variant, splits, tmp_path)
    float_phase, plain, averaged, drawn, clips = phases.values()
    assert float_phase == ablation.FLOAT_PHASE and plain == ablation.NOISY_PHASE
    assert averaged == replace(plain, average=ablation.AVERAGE)
    assert drawn == replace(plain, loudness=ablation.DRAWN)
    assert clips == replace(plain, clips=True)


@pytest.mark.slow
def test_every_variant_gives_a_record_with_its_deviation(splits: Splits, tmp_path: Path) -> None:
    variants = (Variant(activation="square", pool="average"), Variant(exponents=4, noise=1.0))
    seen = []
    for record in ablation.train_variants(
        "mnist", variants=variants, work=tmp_path, seed=1, show=lambda name, report: seen.append(name)
    ):
        share = record["accuracy"]
        assert record["standard_error"] == pytest.approx((share * (1 - share) / 256) ** 0.5, abs=1e-4)
    assert record["variant"] == asdict(variants[-1])
    assert record["epochs"] == 2
    assert len(seen) == 3  # the square's float module, the ReLU's, and its circuit


@pytest.mark.parametrize(("degree", "error"), [(2, 0.15), (4, 0.08)])
def test_the_polynomial_is_near_relu_where_batch_norm_puts_its_inputs(degree: int, error: float) -> None:
    x = torch.linspace(-2, 2, 101)
    assert float((Polynomial(degree)(x) - x.clamp_min(0)).abs().mean()) < error


def test_all_variants_have_different_names() -> None:
    names = [variant.name for variant in ablation.VARIANTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("activation", ["relu", "both"])
def test_strides_and_pools_give_maps_of_one_size(activation: str, side: int) -> None:
    images = torch.rand(4, 3, side, side)
    pooled, strided = (
        ablation.module(Variant(activation=activation, pool=pool), 3, side) for pool in ("max", "stride")
    )
    for upto in (1, 2, 3):
        assert pooled[:upto](images).shape == strided[:upto](images).shape


@pytest.mark.slow
def test_a_public_first_layer_is_left_to_the_client(splits: Splits, tmp_path: Path) -> None:
    variant = Variant(activation="both", pool="stride", exponents=4, noise=1.0, public=True)
    network = trained(variant, splits, tmp_path / "one")
    assert isinstance(network, Network)
    assert network.stem is not None
    assert network.input_shape == (16, 7, 7)
    (record,) = ablation.train_variants(
        "mnist", variants=[variant], work=tmp_path, seed=1, show=lambda name, report: None
    )
    assert record["variant"]["public"]
    assert record["images"] == 256
