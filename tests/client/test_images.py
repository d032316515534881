"""Images as users hand them over."""

import numpy as np
import pytest

from ciphershift import errors
from ciphershift.client._wire import InputEncoding, ModelProfile
from ciphershift.client.images import to_integers, to_unit
from ciphershift.he_layers.crypto import params
from ciphershift.protocol.sequences import padded

PROFILE = ModelProfile(
    model="m",
    version="1",
    program_digest="00" * 32,
    profile="fast",
    params_id="00" * 32,
    security_bits=128.0,
    input_shape=(1, 4, 6),
    input_levels=15,
    input_delta=1 / 256,
    classes=("a", "b"),
    turns_to_logits=1.0,
    logit_step=None,
    bootstraps=1,
    key_bytes=1,
    upload_bytes=1,
    download_bytes=1,
    max_batch=4,
)


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_one_image_may_leave_out_axes(shape: tuple[int, ...]) -> None:
    assert to_unit(np.zeros(shape, dtype=np.uint8), PROFILE).shape == (1, 1, 4, 6)


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 1, 4, 6)])
def test_several_images(shape: tuple[int, ...]) -> None:
    assert to_unit(np.zeros(shape), PROFILE).shape == (3, 1, 4, 6)


@pytest.mark.parametrize(
    "shape", [(), (24,), (6, 4), (4, 6, 1), (3, 4, 6, 1), (2, 2, 4, 6), (0, 4, 6), (1, 1, 1, 4, 6)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.BadShapeError):
        to_unit(np.zeros(shape), PROFILE)


def test_bytes_and_floats_become_numbers_up_to_one() -> None:
    values = np.zeros((4, 6), dtype=np.uint8)
    values[0, :3] = 255, 128, 8
    assert to_unit(values, PROFILE)[0, 0, 0, :4].tolist() == [1.0, 128 / 255, 8 / 255, 0.0]
    assert np.array_equal(to_unit(values, PROFILE), to_unit(values / 255.0, PROFILE))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_values_outside_are_refused(value: float) -> None:
    with pytest.raises(errors.OutOfLevelsError):
        to_unit(np.full((4, 6), value), PROFILE)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.complex128, bool])
def test_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(errors.OutOfLevelsError):
        to_unit(np.zeros((4, 6), dtype=dtype), PROFILE)


TABLE = PROFILE.model_copy(
    update={
        "input_shape": (2,),
        "input_levels": 255,
        "input_encoding": InputEncoding(origin=(40.0, 0.0), step=(0.5, 2.0), lowest=(-60, -100), names=("age", "dose")),
    }
)


def test_raw_values_become_integers_of_both_signs() -> None:
    assert to_integers(np.array([[40, 0], [37.1, -200.0]]), TABLE).tolist() == [[0, 0], [-6, -100]]
    assert to_integers(np.array([10, 310]), TABLE).tolist() == [[-60, 155]]


def test_a_raw_value_outside_is_an_error_that_names_its_feature() -> None:
    with pytest.raises(errors.OutOfLevelsError, match=r"dose is 311.5 in sample 1; the model takes -200 to 310"):
        to_integers(np.array([[40, 0], [40, 311.5]]), TABLE)
    with pytest.raises(errors.OutOfLevelsError, match="type <U1"):
        to_integers(np.array([["a", "b"]]), TABLE)


def test_an_encoding_of_another_number_of_features_is_refused() -> None:
    with pytest.raises(errors.MalformedError, match="encodes \\[2\\] features, its input has 3"):
        TABLE.model_copy(update={"input_shape": (3,), "params_id": params.get("TOY_N128").id}).require_consistent()


LONGEST = 5
SERIES = PROFILE.model_copy(
    update={
        "input_shape": (3, LONGEST),
        "input_levels": 255,
        "input_sequences": True,
        "input_encoding": InputEncoding(origin=(0.0, 0.0, 0.0), step=(0.5, 2.0, 1 / 255), lowest=(-60, -100, 0)),
    }
)


@pytest.mark.parametrize("length", [1, 2, LONGEST])
def test_sequences_are_padded(length: int) -> None:
    one = np.arange(2.0 * length).reshape(2, length)
    whole = padded([one], LONGEST)
    for given in (
        one,
        [one],
        one[None],
        one.tolist(),
        [one.tolist()],
        one.astype(np.int64),
        whole,
        whole[0],
        list(whole),
    ):
        assert np.array_equal(to_integers(given, SERIES), to_integers(whole, SERIES))
    several = to_integers([one, np.ones((2, 3)), np.ones((2, 1))], SERIES)
    assert np.array_equal(several, to_integers(padded([one, np.ones((2, 3)), np.ones((2, 1))], LONGEST), SERIES))
    assert several.reshape(3, 3, LONGEST)[:, 2].sum(axis=1).tolist() == [255 * length, 255 * 3, 255]


@pytest.mark.parametrize(
    "presence", [(1, 1, 1, 0, 0), (0,) * LONGEST, (0, 0, 0.5, 1, 1), (0, 1, 0, 1, 1), (3,) * LONGEST]
)
def test_whole_sequences_with_another_presence_are_refused(presence: tuple[float, ...]) -> None:
    given = np.array([*np.zeros((2, LONGEST)), presence])
    for one in (given, [given], given[None]):
        with pytest.raises(errors.BadShapeError, match="holds the presence as its last feature"):
            to_integers(one, SERIES)


def test_a_presence_may_have_the_rounding_of_its_encoding() -> None:
    whole = padded([np.ones((2, 3))], LONGEST)
    rounded = whole + np.array([0, 0, 0.4 / 255])[:, None]
    assert np.array_equal(to_integers(rounded, SERIES), to_integers(whole, SERIES))
    with pytest.raises(errors.BadShapeError, match="presence"):
        to_integers(whole + np.array([0, 0, -0.6 / 255])[:, None], SERIES)


def test_two_series_are_no_sequence_with_its_presence() -> None:
    single = SERIES.model_copy(
        update={
            "input_shape": (2, LONGEST),
            "input_encoding": InputEncoding(origin=(0.0, 0.0), step=(0.5, 1 / 255), lowest=(-60, 0)),
        }
    )
    with pytest.raises(errors.BadShapeError, match="presence"):
        to_integers([np.linspace(0, 1, LONGEST), np.linspace(0.2, 0.9, LONGEST)], single)


@pytest.mark.parametrize(
    "shape", [(2, LONGEST + 1), (2, 0), (1, 2), (3, 2), (3, LONGEST + 1), (2,), (), (0, 2, 2), (1, 1, 2, 2)]
)
def test_other_sequences_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.BadShapeError, match="takes "):
        to_integers(np.zeros(shape), SERIES)


def test_what_is_no_sequence_is_refused_by_its_place() -> None:
    with pytest.raises(
        errors.BadShapeError, match=r"sequence 1 .* \[2, 6\]; .* \[2 features, 1 to 5 steps\].* cut longer"
    ):
        to_integers([np.zeros((2, 2)), np.zeros((2, LONGEST + 1))], SERIES)
    with pytest.raises(errors.BadShapeError, match="sequence 0"):  # whole samples are not mixed with sequences
        to_integers([np.zeros((3, LONGEST)), np.zeros((2, 2))], SERIES)
    with pytest.raises(errors.BadShapeError, match="different shapes"):
        to_integers([[1.0, 2.0], [3.0]], SERIES)
    with pytest.raises(errors.BadShapeError, match="different shapes"):  # also of a model that takes none
        to_unit([np.zeros((4, 6)), np.zeros((4, 5))], PROFILE)
    with pytest.raises(errors.OutOfLevelsError, match="type"):
        to_integers([np.full((2, 2), "1")], SERIES)


def test_bytes_of_a_sequence_stand_for_zero_to_one() -> None:
    pixels = SERIES.model_copy(update={"input_encoding": None})
    (found,) = to_unit([np.array([[0, 255], [51, 0]], dtype=np.uint8)], pixels)
    assert found.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0.2, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(3,), (1, LONGEST), (1, 3, LONGEST)])
def test_a_profile_of_sequences_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    wrong = {"input_shape": shape, "input_encoding": None, "params_id": params.get("TOY_N128").id}
    with pytest.raises(errors.MalformedError, match="sequences"):
        SERIES.model_copy(update=wrong).require_consistent()
