"""Every check of every container, reached by hundreds of inputs that pass all checks before it; and random damage besides.

The bulk runs against the parsers that server and client use, in this process; test_hostile_requests.py sends a part of it over HTTP.
"""

import random
import resource

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer, ProductCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.protocol.container import Kind, read_header
from tests.support.hostile import Case, Tally, Target, cases

TOY = params.get("TOY_N128")
BLOCKS = params.get("TOY_N128_BLOCK3")
PER_CHECK = 200
SECONDS_EACH = 2.0  # a hang, not a measurement: the slowest takes some tens of milliseconds
MEMORY_GROWTH = 256 << 20


def targets() -> dict[str, Target]:
    keys = ClientKeys.generate(TOY)
    bundle = keys.evaluation_keys().to_bytes()
    key_id = read_header(bundle).key_id
    image = ckks.encrypt(keys, key_id, np.full(9, 0.01))  # 9 values of 14 bits: two padding bits
    binding = Binding.of([image], "ab" * 32)
    answer = PackedAnswer(
        params=TOY,
        binding=binding,
        c0=np.arange(3, dtype=np.uint64),  # 3 values of 20 bits: four padding bits
        c1=np.arange(TOY.answer_ring.ring_degree, dtype=np.uint64),
    )
    secrets = ("input_secret", "answer_secret", "small_lwe_key", "glwe_key")
    blocks = ClientKeys.generate(BLOCKS)
    made = (
        Target(
            name="ciphertext",
            good=image.to_bytes(),
            read=lambda data: CkksCiphertext.from_bytes(data, TOY, key_id, 9),
            fields=CkksCiphertext._fields(TOY, 9),
            ranges={"c1": (TOY.input_ring.modulus, 1 << TOY.input_ring.modulus_bits)},
            masks=("c1",),
        ),
        Target(
            name="ciphertext without look-ups",
            good=ckks.encrypt(keys, key_id, np.full(9, 0.01), ProductCiphertext).to_bytes(),
            read=lambda data: ProductCiphertext.from_bytes(data, TOY, key_id, 9),
            fields=ProductCiphertext._fields(TOY, 9),
            ranges={},
            masks=("c1",),
        ),
        Target(
            name="evaluation keys",
            good=bundle,
            read=lambda data: EvaluationKeys.from_bytes(data, TOY),
            fields=EvaluationKeys._fields(TOY),
            ranges={"answer_key": (TOY.answer_ring.modulus, 1 << TOY.answer_ring.modulus_bits)},
            names_itself=True,
        ),
        Target(
            name="answer",
            good=answer.to_bytes(),
            read=lambda data: PackedAnswer.from_bytes(data, TOY, binding, 3),
            fields=PackedAnswer._fields(TOY, 3),
            ranges={},
            masks=("c1",),
            bindings=("request", "program"),
        ),
        Target(
            name="client keys",
            good=keys.to_bytes(),
            read=lambda data: ClientKeys.from_bytes(data, TOY),
            fields=ClientKeys._fields(TOY),
            ranges=dict.fromkeys(secrets, (3, 4)),
            names_itself=True,
        ),
        Target(
            name="evaluation keys of blocks",
            good=blocks.evaluation_keys().to_bytes(),
            read=lambda data: EvaluationKeys.from_bytes(data, BLOCKS),
            fields=EvaluationKeys._fields(BLOCKS),
            ranges={"answer_key": (BLOCKS.answer_ring.modulus, 1 << BLOCKS.answer_ring.modulus_bits)},
            names_itself=True,
        ),
        Target(
            name="client keys of blocks",
            good=blocks.to_bytes(),
            read=lambda data: ClientKeys.from_bytes(data, BLOCKS),
            fields=ClientKeys._fields(BLOCKS),
            ranges=dict.fromkeys(secrets, (3, 4)),
            names_itself=True,
        ),
    )
    return {target.name: target for target in made}


TARGETS = targets()


def outcome(target: Target, data: bytes, tally: Tally) -> BaseException | None:
    with tally.promptly(SECONDS_EACH):
        try:
            target.read(data)
        except Exception as error:  # the tally counts what is not typed as a crash
            return error
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_every_check_refuses_what_is_made_to_reach_it(name: str, tally: Tally) -> None:
    target = TARGETS[name]
    assert outcome(target, target.good, tally) is None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in cases(target, PER_CHECK, random.Random(0)):
        tally.refuse(name, case.check, outcome(target, case.data, tally), case.error)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY_GROWTH
    assert outcome(target, target.good, tally) is None


@pytest.mark.parametrize("name", TARGETS)
def test_every_truncation_of_the_header_is_refused(name: str, tally: Tally) -> None:
    target = TARGETS[name]
    for length in range(112):
        assert isinstance(outcome(target, target.good[:length], tally), CiphershiftError)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_damage_is_refused(name: str, tally: Tally, data: st.DataObject) -> None:
    """Up to eight flipped bits anywhere; the digest finds what no other check does."""
    target = TARGETS[name]
    bits = data.draw(st.sets(st.integers(0, 8 * len(target.good) - 1), min_size=1, max_size=8))
    damaged = bytearray(target.good)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    error = outcome(target, bytes(damaged), tally)
    assert isinstance(error, CiphershiftError)
    tally.refuse(name, "random damage", error, type(error))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=4096))
def test_bytes_of_any_kind_are_refused(name: str, tally: Tally, data: bytes) -> None:
    error = outcome(TARGETS[name], data, tally)
    assert isinstance(error, CiphershiftError)
    tally.refuse(name, "bytes of any kind", error, type(error))


def test_random_payloads_with_a_right_digest_are_refused_or_hold_only_allowed_values(tally: Tally) -> None:
    """What passes is conformant: a random ciphertext may be well formed, and then every residue is below the modulus."""
    target, rng = TARGETS["ciphertext"], random.Random(1)
    for _ in range(300):
        payload = bytearray(rng.randbytes(len(target.payload)))
        for _ in range(rng.randrange(1, 4)):
            payload[rng.randrange(len(payload))] = 0xFF
        data = target.with_payload(bytes(payload))
        error = outcome(target, data, tally)
        assert error is None or isinstance(error, CiphershiftError)
        if error is None:
            read = target.read(data)
            assert isinstance(read, CkksCiphertext)
            assert int(read.c1.max()) < TOY.input_ring.modulus


def test_a_case_that_is_accepted_would_be_seen(tally: Tally) -> None:
    """The tally fails on a good container, and on one that is stopped by another check than it was made for."""
    own, target = Tally(), TARGETS["ciphertext"]
    case = next(iter(cases(target, 1, random.Random(2))))
    with pytest.raises(AssertionError):
        own.refuse("self-test", case.check, outcome(target, target.good, tally), case.error)
    assert own.accepted == ["self-test: length limit"]
    wrong = Case("digest", CiphershiftError.by_code["digest_mismatch"], case.data)
    with pytest.raises(AssertionError):
        own.refuse("self-test", wrong.check, outcome(target, wrong.data, tally), wrong.error)


def test_all_kinds_are_attacked() -> None:
    locked = {
        Kind.LOCKED_CLIENT_KEYS
    }  # its own tests are in tests/client/test_keystore.py: each guess takes a tenth of a second
    assert {target.kind for target in TARGETS.values()} | locked == set(Kind)
