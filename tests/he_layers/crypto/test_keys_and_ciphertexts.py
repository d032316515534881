"""Keys, CKKS at the client, and the types that cross the border."""

import copy
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, NotConformantError, WrongKeyError
from ciphershift.he_layers.crypto import ckks, lwe, noise, packing, params, pbs, seal
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import PAIR_BYTES, ClientKeys
from ciphershift.protocol import container
from ciphershift.protocol.container import Kind

TOY = params.get("TOY_N128")
SHARED = params.get("TOY_N128_SHARED2")
KEY_ID = "ab" * 32
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def keys() -> ClientKeys:
    return ClientKeys.generate(TOY)


def test_coefficients_and_slots_are_inverse() -> None:
    coefficients = np.random.default_rng(0).normal(size=1024)
    slots = seal.slots_from_coefficients(coefficients)
    root = np.exp(1j * np.pi / 1024)
    assert np.allclose(slots[1], np.polyval(coefficients[::-1], root**3))  # slot j stands at zeta^(3^j)
    assert np.allclose(seal.coefficients_from_slots(slots), coefficients)


def test_seal_encrypts_and_decrypts_coefficients(keys: ClientKeys) -> None:
    ring = TOY.answer_ring
    message = np.random.default_rng(1).uniform(-(2.0**40), 2.0**40, ring.ring_degree)
    residues = seal.encrypt(ring, keys.answer_secret, message)
    assert np.abs(seal.decrypt(ring, keys.answer_secret, residues) - message).max() < 8 * 3.24 + 1


def test_the_seal_inside_tenseal_is_the_one_that_security_names(tmp_path: Path) -> None:
    path = tmp_path / "parameters"
    sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS).save(str(path))
    major, minor = path.read_bytes()[3:5]  # of the header that SEAL writes
    assert f"Microsoft SEAL {major}.{minor}" in (ROOT / "SECURITY.md").read_text()


def test_a_file_that_seal_reads_is_private_overwritten_and_gone(
    keys: ClientKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no files in memory, such as on macOS."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ends: list[tuple[int, bytes]] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: ends.append((os.fstat(file).st_mode & 0o777, os.pread(file, 1 << 20, 0)))
    )
    residues = seal.encrypt(TOY.answer_ring, keys.answer_secret, np.zeros(TOY.answer_ring.ring_degree))
    assert np.abs(seal.decrypt(TOY.answer_ring, keys.answer_secret, residues)).max() < 8 * 3.24 + 1
    assert len(ends) >= 2
    assert {mode for mode, _ in ends} == {0o600}
    assert all(content and not any(content) for _, content in ends)
    assert list(tmp_path.iterdir()) == []


def test_encrypting_twice_gives_different_ciphertexts(keys: ClientKeys) -> None:
    values = np.full(10, 0.1)
    first, second = (ckks.encrypt(keys, KEY_ID, values) for _ in range(2))
    assert not np.array_equal(first.c1, second.c1)
    assert len(first.to_bytes()) == len(second.to_bytes()) == CkksCiphertext.nbytes(TOY, 10)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.zeros(0), BadShapeError),
        (np.zeros((2, 2)), BadShapeError),
        (np.full(3, 0.26), NotConformantError),
        (np.full(3, np.nan), NotConformantError),
    ],
)
def test_encrypt_refuses_what_does_not_fit(keys: ClientKeys, values: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        ckks.encrypt(keys, KEY_ID, values)


def test_values_beyond_one_ring_go_into_further_elements(keys: ClientKeys) -> None:
    values = np.random.default_rng(3).uniform(-0.25, 0.25, 2 * 1024 + 7)
    sent = ckks.encrypt(keys, KEY_ID, values)
    data = sent.to_bytes()
    assert sent.c1.shape == (3, 1024)
    assert len(data) == CkksCiphertext.nbytes(TOY, len(values))
    rows = lwe.sample_extract(CkksCiphertext.from_bytes(data, TOY, KEY_ID, len(values))).data
    words = rows[:, -1] - rows[:, :-1] @ keys.input_secret.astype(np.int32).astype(np.uint32)
    assert np.abs(words.astype(np.int32) / 2.0**32 - values).max() < 6 * noise.fresh_ckks_variance(TOY) ** 0.5


def test_an_element_without_mask_is_refused_wherever_it_stands(keys: ClientKeys) -> None:
    sent = ckks.encrypt(keys, KEY_ID, np.zeros(1030))
    sent.c1[1] = 0
    with pytest.raises(NotConformantError, match="nothing is encrypted"):
        CkksCiphertext.from_bytes(sent.to_bytes(), TOY, KEY_ID, 1030)


def test_ciphertext_with_residues_above_the_modulus_or_without_mask_is_refused(keys: ClientKeys) -> None:
    ring = TOY.input_ring
    good = ckks.encrypt(keys, KEY_ID, np.zeros(4))
    for word, message in ((ring.modulus, "modulus"), (0, "nothing is encrypted")):
        c1 = np.full(ring.ring_degree, word, np.uint64)
        forged = CkksCiphertext(params=TOY, key_id=KEY_ID, c0=good.c0, c1=c1).to_bytes()
        with pytest.raises(NotConformantError, match=message):
            CkksCiphertext.from_bytes(forged, TOY, KEY_ID, 4)


@pytest.mark.parametrize("toy", [TOY, SHARED], ids=lambda toy: toy.name)
def test_evaluation_keys_survive_their_bytes(toy: ParameterSet) -> None:
    sent = ClientKeys.generate(toy).evaluation_keys()
    data = sent.to_bytes()
    assert len(data) == EvaluationKeys.nbytes(toy)
    read = EvaluationKeys.from_bytes(data, toy)
    for name in ("mask_seed", "input_ksk", "ksk", "bsk", "merge_key", "split_key", "answer_key"):
        assert np.array_equal(getattr(sent, name), getattr(read, name))


def test_answer_key_above_its_modulus_is_refused(keys: ClientKeys) -> None:
    data = bytearray(keys.evaluation_keys().to_bytes())
    data[-64:] = b"\xff" * 64
    payload = bytes(data[container.HEADER_BYTES :])
    forged = container.pack(Kind.EVALUATION_KEYS, TOY.id, None, payload)
    with pytest.raises(NotConformantError, match="answer key"):
        EvaluationKeys.from_bytes(forged, TOY)


@pytest.mark.parametrize("toy", [TOY, SHARED], ids=lambda toy: toy.name)
def test_no_two_rows_of_keys_share_a_mask(toy: ParameterSet) -> None:
    """Two rows with one mask under one key would show the difference of their messages."""
    server = ClientKeys.generate(toy).evaluation_keys().expand()
    masks = np.concatenate([key[0] for key in (server.input_ksk, server.ksk)])
    assert len(np.unique(masks, axis=0)) == len(masks)
    rings = np.concatenate(
        [key[:, 0, 0].reshape(-1, 2) for key in (server.fourier_bsk, server.merge_key, server.split_key)]
    )
    assert len(np.unique(rings, axis=0)) == len(rings)


def test_bodies_that_share_masks_have_keys_of_their_own() -> None:
    """Under one key the difference of two bodies would be that of their messages."""
    keys = ClientKeys.generate(SHARED)
    for pair in (keys.small_lwe_keys, keys.big_lwe_keys):
        assert len(pair) == SHARED.bodies == 2
        assert not np.array_equal(*pair)
    assert np.array_equal(ClientKeys.from_bytes(keys.to_bytes(), SHARED).big_lwe_keys, keys.big_lwe_keys)
    data = keys.evaluation_keys().to_bytes()
    keys.require_pair(data[:PAIR_BYTES])
    with pytest.raises(WrongKeyError, match="other secret keys"):
        ClientKeys.generate(SHARED).require_pair(data)


def test_client_keys_survive_their_bytes_and_show_nothing(keys: ClientKeys) -> None:
    again = ClientKeys.from_bytes(keys.to_bytes(), TOY)
    for name in ("input_secret", "answer_secret", "small_lwe_key", "glwe_key"):
        assert np.array_equal(getattr(keys, name), getattr(again, name))
    assert repr(keys) == str(keys) == "ClientKeys(TOY_N128, <secret>)"
    for export in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            export(keys)
    assert keys != again  # secrets are not compared


def test_a_block_key_survives_its_bytes_and_one_with_two_ones_in_a_block_is_refused() -> None:
    blocks = params.get("TOY_N128_BLOCK3")
    keys = ClientKeys.generate(blocks)
    assert np.array_equal(ClientKeys.from_bytes(keys.to_bytes(), blocks).small_lwe_key, keys.small_lwe_key)
    keys.small_lwe_key[:3] = 1, 0, 1
    with pytest.raises(NotConformantError, match="block of 3 bits with two ones"):
        ClientKeys.from_bytes(keys.to_bytes(), blocks)


def under(key: NDArray[np.int8], values: NDArray[np.float64], input_words: int = 0) -> LweCiphertextList:
    """Noiseless ciphertexts of values in turns."""
    mask = np.random.default_rng(2).integers(0, 2**32, (len(values), len(key)), dtype=np.uint32)
    bodies = mask @ key.astype(np.int32).astype(np.uint32) + lwe.to_words(values)
    return LweCiphertextList(np.column_stack([mask, bodies]), input_words=input_words)


@pytest.mark.parametrize("name", [name for name in params.SETS if name.startswith("TOY_N128")])
def test_a_look_up_gives_the_value_of_its_table(name: str) -> None:
    """Seventeen values under six keys, far enough from the next point for the noise, under the input key, the big key or both: each reads
    its own entry of its own table, and a second place, whatever it shares its mask with."""
    toy = params.get(name)
    size, count, rng = toy.polynomial_size, 17, np.random.default_rng(1)
    steps = rng.integers(-8, 8, (3, 8)) / 32
    table = np.repeat(steps, size // 8, axis=1)  # eight steps on half of the torus
    point, index = rng.integers(0, 16, count), rng.integers(0, 3, count).astype(np.int32)
    whole, second = np.concatenate([steps, -steps], axis=1), np.array([3, 5, 9])
    expected = np.concatenate([whole[index, point], whole[index, (point + second[index]) % 16]])
    for _ in range(6):
        keys = ClientKeys.generate(toy)
        server = keys.evaluation_keys().expand()
        big, both = keys.big_lwe_keys[0], np.concatenate([keys.input_secret, keys.big_lwe_keys[0]])
        for key, input_words in ((big, 0), (keys.input_secret, len(keys.input_secret)), (both, len(keys.input_secret))):
            x = under(key, (point + 0.5) / 16, input_words)
            places = (second * (size // 8)).astype(np.int32)
            found = pbs.pbs(x, server, table, index, second=places).data
            words = found[:, -1] - found[:, :-1] @ big.astype(np.uint32)
            assert np.abs(words.astype(np.int32) / 2.0**32 - expected).max() < 0.01


def test_lists_under_a_foreign_key_are_refused(keys: ClientKeys) -> None:
    server = keys.evaluation_keys().expand()
    rows, table, index = np.zeros((1, 100), np.uint32), np.zeros((1, 128)), np.zeros(1, np.int32)
    with pytest.raises(BadShapeError, match="0 and 99 words"):
        pbs.pbs(LweCiphertextList(rows), server, table, index)
    with pytest.raises(BadShapeError, match="99 and 0 words"):
        pbs.pbs(LweCiphertextList(rows, input_words=99), server, table, index)
    pair = LweCiphertextList(np.zeros((1, TOY.big_dimension + 2), np.uint32), bodies=2)
    with pytest.raises(BadShapeError, match="2 bodies"):
        lwe.key_switch(pair, server)
    with pytest.raises(BadShapeError, match="cannot come to share masks"):
        lwe.merge(LweCiphertextList(np.zeros((1, TOY.big_dimension + 1), np.uint32)), server)
    with pytest.raises(BadShapeError, match="cannot be packed"):
        packing.packing_key_switch(pair, server, Binding(key_id=KEY_ID, request=KEY_ID, program=KEY_ID))


def test_one_value_cannot_be_switched_where_two_share_a_mask() -> None:
    server = ClientKeys.generate(SHARED).evaluation_keys().expand()
    for words, of_input in ((SHARED.big_dimension, 0), (1024, 1024)):
        with pytest.raises(BadShapeError, match="small key of TOY_N128_SHARED2"):
            lwe.key_switch(LweCiphertextList(np.zeros((2, words + 1), np.uint32), input_words=of_input), server)


def test_shift_matrix_takes_powers_of_two_only() -> None:
    with pytest.raises(BadShapeError, match="2\\*\\*e"):
        lwe.ShiftMatrix.from_entries(1, 1, np.array([0]), np.array([0]), np.array([3]))
    with pytest.raises(BadShapeError, match="outside"):
        lwe.ShiftMatrix.from_entries(1, 1, np.array([0]), np.array([1]), np.array([4]))
