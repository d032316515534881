"""The attacks steal what they must be able to steal, and the errors that they are judged by say so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.benchmarks.extraction import audit, critical, moments, oracles, quota, recovery, students, victims
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.api.profile import profile_of
from ciphershift.server.repository import Repository
from ciphershift.server.settings import Settings


def test_moments_find_the_directions_of_a_hidden_layer() -> None:
    rng = np.random.default_rng(0)
    wanted = np.linalg.qr(rng.standard_normal((6, 3)))[0].T
    z = rng.standard_normal((40_000, 6))
    answers = np.clip(z @ wanted.T / 4 + [0.0, 0.1, -0.1], 0, 1) @ rng.standard_normal((3, 4))
    found = moments.directions(z, answers, 3, seed=0)
    assert np.abs(wanted @ found.T).max(axis=1).min() > 0.95
    rows = np.column_stack([wanted / 4, [0.0, 0.1, -0.1]])
    assert recovery.relative_error(rows, moments.units(z, answers, found)) < 0.4


def test_critical_points_are_found_in_exact_answers_and_not_in_encrypted_ones() -> None:
    victim = victims.depth_two(16, 8, 4, 10, seed=1)
    wanted = recovery.true_rows(victim)
    low, high = victim.read(np.array([0, 255], dtype=np.uint8))
    encrypted = oracles.oracle(victim, victim.program, params.get(victim.program.params))
    errors = {
        name: min(
            recovery.relative_error(wanted, critical.rows(ask, low, high, 16, 8, 5000, step)[0])
            for step in critical.STEPS
        )
        for name, ask in {"exact": oracles.unrounded(victim), "encrypted": encrypted}.items()
    }
    assert errors["exact"] < 1e-4
    assert errors["encrypted"] > 0.1


def test_an_oracle_answers_chosen_inputs_as_the_simulation_does() -> None:
    victim = victims.depth_two(8, 4, 3, 50, seed=2)
    integers = victim.program.integers(victim.queries).astype(np.float64)
    chosen = (integers / victim.program.input.levels - victim.center) / victim.spread
    found = oracles.CONTROLS["clear"](victim)(chosen)
    plain = simulate.plain(victim.program, victim.queries) * victim.program.output.scales
    assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] > 0.99


def test_the_error_knows_order_length_and_mirrored_units() -> None:
    rows = np.random.default_rng(1).standard_normal((4, 6))
    mirrored = -rows[[2]]
    mirrored[:, -1] = 1 - rows[2, -1]
    found = np.concatenate([3 * rows[[3]], mirrored, rows[[0]], rows[[1]] / 5])
    assert recovery.relative_error(rows, found) == pytest.approx(0, abs=1e-6)
    assert recovery.relative_error(rows, np.zeros_like(rows) + 1e-9) > 0.5
    half = recovery.relative_error(np.eye(4, 6), np.eye(4, 6)[:2])  # two of four units of one length are missing
    assert half == pytest.approx(0.5**0.5)


def test_the_copy_with_the_victims_weights_is_the_victim() -> None:
    victim = victims.depth_two(8, 4, 3, 500, seed=2)
    rows = recovery.true_rows(victim)
    student = students.untrained(victim.program, 0)
    with torch.no_grad():
        first = student[0]
        assert isinstance(first, nn.Linear)
        first.weight.copy_(torch.from_numpy(rows[:, :-1]))
        first.bias.copy_(torch.from_numpy(rows[:, -1]))
    answers = simulate.plain(victim.program, victim.queries).astype(np.float64)
    students.fit_last(student, victim.read(victim.queries), answers)
    found = students.classes_of(student, victim.read(victim.test))
    wanted = simulate.plain(victim.program, victim.test).argmax(1)
    assert (found == wanted).mean() > 0.9  # its activations are rounded to 31 levels, the copy's are not
    assert recovery.relative_error(rows, students.first_rows(student)) < 1e-3


@pytest.mark.parametrize("kind", victims.KINDS)
def test_every_kind_of_answer_is_asked_for(kind: str) -> None:
    victim = victims.depth_two(8, 4, 3, 50, seed=2)
    answers = victims.ask(victim.program, kind, params.get(victim.program.params), victim.queries, seed=0)
    assert answers.shape == (50, 3)
    if kind == "class":
        assert np.abs(answers - answers.round()).max() < 0.2


@pytest.mark.slow
def test_a_record_has_every_kind_of_answer_and_number_of_queries() -> None:
    records = list(audit.attack("depth-2", queries=(600, 300), steps=2))
    assert [record["answer"] for record in records] == [*victims.KINDS, *oracles.CONTROLS]
    tried = {"class": {"distillation", "moments"}} | {control: {"critical points"} for control in oracles.CONTROLS}
    for record in records:
        attacks = tried.get(record["answer"], {"distillation", "moments", "critical points"})
        points = [(p["queries"], p["attack"]) for p in record["points"]]
        assert sorted(points) == sorted((count, attack) for count in (300, 600) for attack in attacks)
        assert all(0 <= p["agreement"] <= 1 and 0 <= p["weights_error"] <= 1 for p in record["points"])


@pytest.mark.parametrize(
    ("without", "agreements", "answers"),
    [
        (None, (0.5, 0.8, 0.95), 200),
        (None, (0.9, 0.8, 0.95), 0),
        (None, (0.1, 0.2, 0.3), 300),
        (0.98, (0.1, 0.2, 0.3), 0),
    ],
)
def test_a_quota_is_for_the_stated_loss_and_stands_in_the_profile(
    tiny_program: Program, tmp_path: Path, without: float | None, agreements: tuple[float, ...], answers: int
) -> None:
    points = [{"queries": 100 * (at + 1), "agreement": share} for at, share in enumerate(agreements)]
    tiny_program.save(tmp_path / "tiny")
    (tmp_path / "tiny" / "card.json").write_text('{"accuracy_simulated": 0.5}')
    quota.keep(tmp_path / "tiny", {"without_queries": without, "points": points})
    (model,) = Repository(Settings(models=tmp_path, allow_toy_parameters=True)).values()
    profile = profile_of(model, 1)
    assert profile.recommended_quota is not None
    assert (profile.recommended_quota.answers, profile.recommended_quota.agreement) == (answers, 0.9)
    assert profile.accuracy_encrypted == 0.5


@pytest.mark.parametrize("folder", sorted(Settings().models.iterdir()), ids=lambda folder: folder.name)
def test_every_network_of_the_zoo_can_be_attacked(folder: Path) -> None:
    program = Program.load(folder).behind_stem
    network = students.untrained(program, 0)
    found = students.classes_of(network.eval(), np.zeros((3, *program.sample_shape), dtype=np.float32))
    assert found.shape == (3,)
    inputs = np.random.default_rng(0).random((8, *program.sample_shape), dtype=np.float32)
    answers = np.eye(len(program.output.classes))[[0, 1] * 4]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    students.distill(network, inputs, answers, steps=1, by_class=True)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_cards_of_the_zoo_have_quotas() -> None:
    cards = {path.parent.name: json.loads(path.read_text()) for path in Settings().models.glob("*/card.json")}
    without = {name for name, card in cards.items() if "recommended_quota" not in card}
    assert without == {
        "cifar10-dshe",
        "cifar10-fast",
        "cifar10-she",
        "fashion-fast",
        "mnist-dshe",
    }  # attacks on large networks take hours


def test_a_network_whose_layers_are_no_row_is_attacked_by_a_dense_one(tiny_program: Program) -> None:
    assert students.is_row(tiny_program)
    assert len(students.untrained(tiny_program, 0)) == len(tiny_program.layers)
    other = Program.load(Settings().models / "splice-rnn")
    assert not students.is_row(other)
    assert [type(part) for part in students.untrained(other, 0)] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
