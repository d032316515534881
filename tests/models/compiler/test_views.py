"""Answers averaged over an image and its mirror image: the mean of two answers, from one encryption. And wider windows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import OutOfLevelsError, ProgramError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.layers import Conv2d, Linear
from ciphershift.he_layers.program import OutputSpec, Program
from ciphershift.models import verification
from ciphershift.models.compiler import answers
from ciphershift.models.training.cards import ZOO
from ciphershift.protocol.outputs import Part
from tests.support import command_line, other_inputs, stems

TOY = params.get("TOY_N128")


@pytest.fixture(scope="module")
def mirrored(tiny_program: Program) -> Program:
    return answers.mirrored(tiny_program)


def test_the_answer_is_the_mean_of_both(
    tiny_program: Program, mirrored: Program, tiny_images: NDArray[np.uint8]
) -> None:
    both = [
        simulate.plain(tiny_program, np.ascontiguousarray(images)) * tiny_program.output.scale
        for images in (tiny_images, tiny_images[..., ::-1])
    ]
    found = simulate.plain(mirrored, tiny_images) * mirrored.output.scale
    assert not np.array_equal(both[0], both[1])
    assert np.allclose(found, np.mean(both, axis=0))
    assert mirrored.lookups == 2 * tiny_program.lookups
    assert mirrored.input == tiny_program.input  # the upload is the same


def test_encrypted_it_is_the_simulated_one(mirrored: Program, tiny_images: NDArray[np.uint8]) -> None:
    images = tiny_images[:2]
    rng = np.random.default_rng(0)
    runs = np.stack([simulate.run(mirrored, TOY, images, rng) for _ in range(40)])
    found = np.stack(list(verification.encrypted_logits(mirrored, images, threads=1)))
    assert (np.abs(found - runs.mean(axis=0)) < 7 * runs.std(axis=0)).all()


def test_the_mean_carries_less_of_the_noise_before_the_last_look_up(
    tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    """The views read the same noisy pixels at other places: for an image that is its own mirror image the means spread less."""
    silent = simulate.CircuitNoise.silent(TOY.polynomial_size)
    noise = replace(silent, fresh=0.02)
    symmetric = np.repeat(np.maximum(tiny_images[:1], tiny_images[:1, ..., ::-1]), 4000, axis=0)
    spread = [
        simulate.run_with(program, noise, symmetric, np.random.default_rng(1)).std(axis=0)
        for program in (tiny_program, answers.mirrored(tiny_program))
    ]
    assert (spread[1] < spread[0]).all()


def test_it_is_stored_and_read_like_any_other(mirrored: Program, tmp_path: Path) -> None:
    mirrored.save(tmp_path)
    assert Program.load(tmp_path).digest == mirrored.digest


def test_what_has_no_mirror_image_is_refused(tiny_program: Program) -> None:
    with pytest.raises(ProgramError, match=r"takes \(4,\) and encrypts \(4,\); only images have a second view"):
        answers.mirrored(other_inputs.table())
    with pytest.raises(ProgramError, match="has no look-up"):
        answers.quantized(other_inputs.scores(), 15)
    single = replace(
        other_inputs.table(),
        layers=(*other_inputs.table().layers[:-1], Linear(name="dose", weight=np.array([[-2, 2]], dtype=np.int8))),
        output=OutputSpec(classes=("dose",), scale=1.0),
    )
    for change in (answers.top_one, lambda program: answers.quantized(program, 15)):
        with pytest.raises(ProgramError, match="answers with one number, which is compared with no other"):
            change(single)
    with pytest.raises(ProgramError, match="ends in"):
        answers.mirrored(answers.top_one(tiny_program))
    places = replace(tiny_program.output, parts=(Part(name="", shape=(1, 1, len(tiny_program.output.classes))),))
    with pytest.raises(
        ProgramError, match=r"outputs of the shapes \[\(1, 1, \d+\)\]: a map is mirrored with its image"
    ):
        answers.mirrored(replace(tiny_program, output=places))


@pytest.fixture(scope="module")
def behind_maps(tiny_program: Program) -> Program:
    """Reads three maps, of which the first and the last are mirror images if the image is mirrored."""
    onnx = stems.kernels(stems.LEFT, stems.KERNEL, stems.LEFT[..., ::-1])
    stem = stems.stem(onnx, shape=(3, 8, 8), low=(0.0,) * 3, high=(1.5, 2.0, 1.5))
    conv = tiny_program.layers[0]
    assert isinstance(conv, Conv2d)
    weight = np.concatenate([conv.weight, 2 * conv.weight, -conv.weight], axis=1)
    return replace(
        tiny_program,
        input=replace(tiny_program.input, shape=(3, 8, 8)),
        stem=stem,
        layers=(replace(conv, weight=weight), *tiny_program.layers[1:]),
    )


def test_maps_of_a_public_part_are_mirrored_from_one_upload(behind_maps: Program) -> None:
    assert behind_maps.stem is not None
    images = np.random.default_rng(4).random((6, *stems.RAW))
    both = [
        simulate.plain(behind_maps.behind_stem, levels(behind_maps, np.ascontiguousarray(view)))
        for view in (images, images[..., ::-1])
    ]
    found = simulate.plain(answers.mirrored(behind_maps).behind_stem, levels(behind_maps, images))
    assert not np.array_equal(both[0], both[1])
    assert np.array_equal(found, both[0] + both[1])


def levels(program: Program, images: NDArray[np.float64]) -> NDArray[np.uint8]:
    assert program.stem is not None
    return np.rint(program.stem.unit(images) * program.input.levels).astype(np.uint8)


def test_maps_without_mirror_images_or_in_other_ranges_are_refused(behind_maps: Program) -> None:
    assert behind_maps.stem is not None
    with pytest.raises(ProgramError, match="gives other maps for a mirrored image"):
        answers.mirrored(
            replace(
                behind_maps, stem=replace(behind_maps.stem, onnx=stems.kernels(stems.LEFT, stems.KERNEL, stems.LEFT))
            )
        )
    with pytest.raises(ProgramError, match="different ranges"):
        answers.mirrored(replace(behind_maps, stem=replace(behind_maps.stem, high=(1.5, 2.0, 1.0))))


def test_both_views_have_their_arrays_in_the_file_once(
    tiny_program: Program, mirrored: Program, tmp_path: Path
) -> None:
    for name, program in (("one", tiny_program), ("two", mirrored)):
        program.save(tmp_path / name)
    one, two = ((tmp_path / name / "weights.safetensors").stat().st_size for name in ("one", "two"))
    assert two < one + 4 * tiny_program.input.shape[1] * tiny_program.input.shape[2] + 512  # the order of the places


def test_wider_windows_of_a_recurrent_network_are_certified_anew() -> None:
    program = Program.load(ZOO / "splice-rnn")
    wide = answers.widened(program, 2.0)
    (before,), (after,) = program.recurrent, wide.recurrent
    assert after.norm == pytest.approx(before.norm)
    assert after.reach / after.window < 0.8 * before.reach / before.window


def test_wider_windows_give_the_same_plaintext_network(tiny_program: Program, tiny_images: NDArray[np.uint8]) -> None:
    wide = answers.widened(tiny_program, 2)
    assert np.array_equal(simulate.plain(wide, tiny_images), simulate.plain(tiny_program, tiny_images))
    rng, images = np.random.default_rng(3), np.repeat(tiny_images[:1], 2000, axis=0)
    narrow_runs, wide_runs = (simulate.run(program, TOY, images, rng) for program in (tiny_program, wide))
    error = np.hypot(wide_runs.std(axis=0), narrow_runs.std(axis=0)) / 2000**0.5
    step = 4 * tiny_program.turns_to_logits / (2 * TOY.polynomial_size)  # of the tables' points
    assert (np.abs(wide_runs.mean(axis=0) - narrow_runs.mean(axis=0)) < 6 * error + step).all()
    assert (wide_runs.std(axis=0) > 1.5 * narrow_runs.std(axis=0)).all()
    with pytest.raises(OutOfLevelsError):
        answers.widened(tiny_program, 0.5)


def test_other_answers_of_networks_that_branch(tiny_program: Program) -> None:
    """All look-ups that the logits are sums of are scaled: of a gated network those of each product."""
    gated = Program.load(ZOO / "mnist-gated")
    images = np.random.default_rng(3).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
    plain = simulate.plain(gated, images)
    coarse = simulate.plain(answers.quantized(gated, levels=31), images)
    for row, levels in zip(plain, coarse, strict=True):
        assert (np.diff(levels[np.argsort(row)]) >= 0).all() and levels.max() > levels.min()
    winner = simulate.plain(answers.top_one(gated), images)
    assert (winner.sum(axis=1) == 1).all()
    assert (winner.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.95
    with pytest.raises(ProgramError, match=r"'rows-rnn' are sums of values that layer_1_state\w* reads, too"):
        answers.top_one(Program.load(ZOO / "rows-rnn"))


def test_on_the_command_line(tmp_path: Path) -> None:
    done = command_line.run(
        "answer", "mnist-tiny", "--views", "2", "--output", str(tmp_path), environment={"HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert Program.load(tmp_path / "mnist-tiny-mirrored").lookups == 2 * 330
    done = command_line.run(
        "answer", "mnist-tiny", "--views", "2", "--levels", "9", environment={"HOME": str(tmp_path)}
    )
    assert done.returncode == 2
    again = command_line.run(
        "answer", str(tmp_path / "mnist-tiny-mirrored"), "--output", str(tmp_path), environment={"HOME": str(tmp_path)}
    )
    assert (
        again.returncode != 0 and "ends in add" in again.stderr
    )  # a folder is read; this one cannot be changed once more
    nowhere = command_line.run("answer", "no-such", "--output", str(tmp_path), environment={"HOME": str(tmp_path)})
    assert "'no-such' is neither a model of the zoo nor a folder with a model" in nowhere.stderr
    unknown = command_line.run("verify", str(tmp_path / "mnist-tiny-mirrored"), environment={"HOME": str(tmp_path)})
    assert unknown.returncode != 0 and "has no card.json" in unknown.stderr
    wide = command_line.run(
        "answer", "breast-cancer", "--windows", "2", "--output", str(tmp_path), environment={"HOME": str(tmp_path)}
    )
    assert wide.returncode == 0, wide.stderr
    assert Program.load(tmp_path / "breast-cancer-wide").name == "breast-cancer-wide"
