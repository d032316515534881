"""Golden files: what format version 1 wrote is read for as long as it is supported, byte for byte and to the same values.

The files are never made again; a file that cannot be read any more is a break of the format, and a matter of docs/format.md's upgrade rule.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciphershift.client._passphrase import is_locked, unlock
from ciphershift.errors import WrongPassphraseError
from ciphershift.he_layers.crypto import ckks, lwe, packing, params, pbs
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer, ProductCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.protocol import container
from ciphershift.protocol.container import VERSION, Kind
from tests.golden import make

FOLDER = Path(__file__).with_name("v1")
KNOWN: dict[str, Any] = json.loads((FOLDER / "known.json").read_text(encoding="utf-8"))
PARAMS = params.get(KNOWN["params"])
VALUES = np.array(KNOWN["values"])

# Here too, so that files and known.json cannot be made anew together unseen.
SHA256 = {
    "evaluation.keys": "ec572c60f8963867273e7add461a7c14961e0bc69eaafa2ff6e724bc2fbdb14b",
    "client.keys": "19097d6ebfd5237893a763347ec60979373f6382b985420cdf0b3a583e7944e1",
    "locked-client.keys": "cb7878fb463353fc272cc9f55b36e6bcdc0a531ed5a04b62f0ed76fa44eba057",
    "image.ciphertext": "916c354d57f974618bff923d35eff4440c55f87c731a26f57378a529d554b7da",
    "logits.answer": "65318ea8268fd2b101dcd4027eb89029c63703227b95001faae340bf52bb2a89",
    "product.ciphertext": "d723861931d356953dc725bcfc761139f1bac9139b93c356b4fb612246f7d407",
}


def data(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def client_keys() -> ClientKeys:
    return ClientKeys.from_bytes(data("client.keys"), PARAMS)


def image() -> CkksCiphertext:
    return CkksCiphertext.from_bytes(data("image.ciphertext"), PARAMS, KNOWN["key_id"], len(VALUES))


def product() -> ProductCiphertext:
    return ProductCiphertext.from_bytes(data("product.ciphertext"), PARAMS, KNOWN["key_id"], len(VALUES))


@pytest.mark.parametrize("name", SHA256)
def test_the_files_are_those_that_were_written(name: str) -> None:
    assert hashlib.sha256(data(name)).hexdigest() == SHA256[name] == KNOWN["sha256"][name]
    assert len(data(name)) < 1_500_000


def test_every_kind_of_this_version_has_a_file() -> None:
    kinds = {container.read_header(data(name)).kind for name in SHA256}
    assert kinds == set(Kind)
    assert VERSION == 1


def test_the_parameter_set_has_kept_its_id() -> None:
    assert {container.read_header(data(name)).params_id for name in SHA256} == {PARAMS.id}


def test_reading_and_writing_gives_the_same_bytes() -> None:
    assert EvaluationKeys.from_bytes(data("evaluation.keys"), PARAMS).to_bytes() == data("evaluation.keys")
    assert client_keys().to_bytes() == data("client.keys")
    assert image().to_bytes() == data("image.ciphertext")
    assert product().to_bytes() == data("product.ciphertext")
    binding = Binding.of([image()], KNOWN["program"])
    answer = PackedAnswer.from_bytes(data("logits.answer"), PARAMS, binding, len(VALUES))
    assert answer.to_bytes() == data("logits.answer")


def test_the_passphrase_opens_the_locked_keys() -> None:
    assert is_locked(data("locked-client.keys"))
    assert unlock(data("locked-client.keys"), PARAMS, KNOWN["passphrase"]) == data("client.keys")
    with pytest.raises(WrongPassphraseError):
        unlock(data("locked-client.keys"), PARAMS, "Golden")


def test_the_ciphertext_decrypts_to_the_known_words() -> None:
    rows = lwe.sample_extract(image()).data
    secret = client_keys().input_secret.astype(np.int32).astype(np.uint32)
    words = (rows[:, -1] - rows[:, :-1] @ secret).astype(np.int32)
    assert words.tolist() == KNOWN["words"]
    assert np.abs(words / 2.0**32 - VALUES).max() < 1e-4


def test_the_ciphertext_without_look_ups_decrypts_to_the_known_words() -> None:
    words = make.product_words(client_keys(), product())
    assert words == KNOWN["product_words"]
    assert np.abs(np.array(words) / 2.0**32 - VALUES).max() < 1e-6


def test_weighted_sums_are_those_of_the_known_values() -> None:
    server = EvaluationKeys.from_bytes(data("evaluation.keys"), PARAMS).expand()
    weight = np.arange(-10, 10, dtype=np.int32).reshape(2, 10)
    binding = Binding.of([product()], KNOWN["program"])
    answer = packing.packing_products(product(), weight, np.array([0.25, 0.0]), server, binding)
    turns = ckks.decrypt(client_keys(), answer)
    assert np.abs((turns - weight @ VALUES - [0.25, 0.0] + 0.5) % 1 - 0.5).max() < 0.002


def test_the_answer_decrypts_to_the_known_values() -> None:
    binding = Binding.of([image()], KNOWN["program"])
    answer = PackedAnswer.from_bytes(data("logits.answer"), PARAMS, binding, len(VALUES))
    assert ckks.decrypt(client_keys(), answer).tolist() == KNOWN["turns"]


def test_the_evaluation_keys_still_compute() -> None:
    """Masks are drawn from a seed on the wire: the streams behind it are as much of the format as the header."""
    server = EvaluationKeys.from_bytes(data("evaluation.keys"), PARAMS).expand()
    half = np.arange(PARAMS.polynomial_size) / (4 * PARAMS.polynomial_size)
    shifted = lwe.add_constant(lwe.sample_extract(image()), lwe.to_words(np.full(len(VALUES), 0.25)))
    looked_up = pbs.pbs(shifted, server, half[None], np.zeros(len(VALUES), np.int32))
    answer = packing.packing_key_switch(looked_up, server, Binding.of([image()], KNOWN["program"]))
    turns = ckks.decrypt(client_keys(), answer)
    assert np.abs(turns - (VALUES + 0.25) / 2).max() < 0.02  # a point of the toy table is 1/256 of a turn
