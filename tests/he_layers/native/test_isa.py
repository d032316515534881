"""Every instruction set gives the same integers, and look-ups that differ by the transforms' rounding only."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys, numpy as np
from ciphershift.he_layers.native import _kernel as kernel
rng, seed = np.random.default_rng(3), bytes(range(32))
x = rng.integers(0, 2**32, (30, 513), dtype=np.uint32)
small, glwe = kernel.uniform_binary(seed, 20, 0), kernel.uniform_binary(seed, 512, 1)
masks = dict(mask_seed=seed, threads=2)
ksk = kernel.expand_key_switch_key(
    kernel.key_switch_key_bodies(glwe[None], small[None], base_log=2, levels=6, std_dev=2.0**-20, first_row=0, noise_seed=seed, **masks),
    output_dimension=20, first_row=0, **masks)
bits = kernel.uniform_binary(seed, 30, 2)
bodies = kernel.bootstrapping_key_bodies(
    bits[:, None], glwe.reshape(1, 4, 128), base_log=23, levels=1, std_dev=2.0**-48, noise_seed=seed, body_bits=48, **masks)
bsk = kernel.expand_ring_key(bodies, first_entry=0, glwe_dimension=4, base_log=23, levels=1, **masks)
small_rows = kernel.key_switch(x, ksk, output_dimension=20, base_log=2, levels=6, binary_key=True, threads=2)
switched = kernel.modulus_switch(small_rows, polynomial_size=128)
blocks = [kernel.block_binary(seed, 40, length) for length in (1, 3, 4)]
table, index = rng.uniform(-.25, .25, (1, 128)), np.zeros(30, np.int32)
rotated = [
    kernel.blind_rotate(
        np.ascontiguousarray(np.delete(switched, slice(bits, 20), axis=1)), table, index, bsk[:entries], base_log=23, levels=1,
        grouping_factor=factor, block_length=length, threads=2)
    for bits, factor, length, entries in ((20, 1, 1, 20), (20, 2, 1, 30), (18, 1, 3, 18), (20, 1, 4, 20))
]
two_keys = kernel.uniform_binary(seed, 1024, 3)
both = kernel.bootstrapping_key_bodies(
    bits.reshape(15, 2), two_keys.reshape(2, 4, 128), base_log=23, levels=1, std_dev=2.0**-48,
    noise_seed=seed, body_bits=47, **masks)
shared = kernel.expand_ring_key(both, first_entry=0, glwe_dimension=4, base_log=23, levels=1, **masks)
ring = dict(base_log=23, levels=1, **masks)
secret = dict(std_dev=2.0**-48, noise_seed=seed, body_bits=47, **ring)
one, two = two_keys.reshape(2, 4, 128)
merging = kernel.ring_switch_key_bodies(
    np.ascontiguousarray(one[:, None, None] * np.eye(2, dtype=np.int8)[:, :, None]), two_keys.reshape(2, 4, 128), first_entry=15, **secret)
splitting = kernel.ring_switch_key_bodies(np.ascontiguousarray(two[:, None, None]), one[None], first_entry=19, **secret)
merge_key = kernel.expand_ring_key(merging, glwe_dimension=4, first_entry=15, **ring)
split_key = kernel.expand_ring_key(splitting, glwe_dimension=4, first_entry=19, **ring)
merged = kernel.merge(x, merge_key, bodies=2, base_log=23, levels=1, threads=2)
pairs = kernel.blind_rotate(
    np.ascontiguousarray(np.delete(switched, slice(15, 19), axis=1)), table, np.zeros(59, np.int32), shared, base_log=23, levels=1,
    grouping_factor=1, block_length=3, bodies=2, split_key=split_key, threads=2)
words = [rows[:, -1] - rows[:, :-1] @ glwe.astype(np.uint32) for rows in rotated]
of_pairs = pairs[:, -1] - pairs[:, :-1] @ one.reshape(-1).astype(np.uint32)
words += [of_pairs[:30], of_pairs[29:], (merged[:, 512:] - merged[:, :512] @ two_keys.reshape(2, 512).T.astype(np.uint32)).reshape(-1)]
phases = [of_list.astype(np.int32) / 2**32 for of_list in words]
np.savez(sys.stdout.buffer, isa=kernel.isa(), ksk=ksk, bodies=bodies, both=both, merging=merging, splitting=splitting,
    switched=switched, blocks=np.concatenate(blocks), phases=phases)
"""


def outputs(isa: str) -> dict[str, np.ndarray]:
    """What the kernel computes when forced to an instruction set; skips where this machine lacks it."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "CIPHERSHIFT_ISA": isa}, capture_output=True, check=False
    )
    if b"not available on this machine" in run.stderr:
        pytest.skip(f"{isa} is not available on this machine")
    assert run.returncode == 0, run.stderr.decode()
    with np.load(io.BytesIO(run.stdout)) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_every_path_agrees_with_the_portable_one(isa: str) -> None:
    portable, other = outputs("portable"), outputs(isa)
    assert str(other["isa"]) == isa
    for name in ("ksk", "bodies", "both", "merging", "splitting", "switched", "blocks"):
        assert np.array_equal(portable[name], other[name])
    assert (
        np.abs(portable["phases"] - other["phases"]).max() < 2.0**-14
    )  # a digit may round to the other side: noise, not value


def test_an_unknown_instruction_set_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from ciphershift.he_layers.native import _kernel; _kernel.isa()"],
        env={**os.environ, "CIPHERSHIFT_ISA": "mmx"},
        capture_output=True,
        check=False,
    )
    assert run.returncode != 0
    assert b"CIPHERSHIFT_ISA=mmx is not available" in run.stderr
