"""Run every peer that is installed, and our own networks, over the same test images; one object per system."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import ROOT, envelope
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.harness.summary import spread
from ciphershift.benchmarks.networks.agreement import read_card
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto import ckks, noise
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.models.training.data import Split
from ciphershift.server.settings import available_cpus

SCRIPTS = Path(__file__).parent
WORK = ROOT / "build" / "peers"
"""Environments, which install.sh makes, and the networks that are trained for the peers."""
KEY_ID = "00" * 32
LINES_OF_ERROR = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A system with an environment and a script of its own.

    Attributes:
        folder: of the script; the environment has the same name.
        system: as people call it.
        images: to encrypt, in a full run; 0: the system has no network, only look-ups.
        quick_images: in a quick run, as many as take about a minute.
        script: in the folder.
        options: further arguments of the script.
        limit_s: seconds after which the script is ended.
        called: its name, where the folder's is another peer's.
    """

    folder: str
    system: str
    images: int = 0
    quick_images: int = 0
    script: str = "run.py"
    options: tuple[str, ...] = ()
    limit_s: float = 900.0
    called: str = ""

    @property
    def name(self) -> str:
        """By which `ciphershift bench peers` runs it, and its records are told from others'."""
        return self.called or self.folder

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return WORK / self.folder / "bin" / "python"

    @property
    def benchmark(self) -> str:
        """That its results belong to."""
        return "peers" if self.images else "primitives"


OUR_ERROR = ("--p-error", "1.2e-3")
"""Of a 4-bit look-up in our fast profile."""
MEMBERS = (
    "version",
    "activation",
    "lookup_error_4bit",
    "accuracy_clear",
    "accuracy_encrypted_n",
    "seconds_per_image",
    "keygen_s",
    "upload_bytes",
    "key_bytes",
    "security_bits",
)
"""That every system's object has; null where it has no such figure, as look-ups alone have no accuracy."""
PEERS = (
    Peer(folder="tenseal", system="TenSEAL", images=20, quick_images=5),
    Peer(folder="concrete_ml", system="Concrete ML", images=2, quick_images=1, options=OUR_ERROR),
    Peer(folder="orion", system="Orion", images=20, quick_images=5),
    Peer(folder="orion2", system="Orion v2", images=20, quick_images=5),
)
LOOKUPS = (
    Peer(folder="concrete_ml", system="Concrete", script="lookups.py", options=OUR_ERROR),
    Peer(folder="openfhe", system="OpenFHE EvalFunc", script="lookups.py"),
    Peer(folder="openfhe", system="OpenFHE EvalFBT", script="bulk.py"),
)
PHOTOGRAPHS = (
    Peer(
        folder="concrete_ml",
        called="concrete_ml-cifar10",
        system="Concrete ML, ternary VGG",
        images=1,
        quick_images=1,
        script="cifar.py",
        limit_s=4800.0,
    ),
)
"""Peers for CIFAR-10, which takes them so long that they run only by name."""


def run_peer(peer: Peer, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Yields what a peer's script finds; one object with a member `skipped` where it cannot run."""
    about = envelope(peer.benchmark) | {"peer": peer.name, "system": peer.system}
    if not peer.python.exists():
        yield about | _skipped(f"not installed: benchmarks/peers/install.sh {peer.folder}")
        return
    images = [str(WORK), str(peer.quick_images if quick else peer.images)] if peer.images else []
    command = [str(peer.python), str(SCRIPTS / peer.folder / peer.script), *images, *peer.options]
    environment = os.environ | {"OMP_NUM_THREADS": str(available_cpus())}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=peer.limit_s
        )
    except subprocess.TimeoutExpired:
        yield about | _skipped(f"ended after {peer.limit_s:.0f} s")
        return
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for result in found:
        yield about | _members(result) | result
    if done.returncode or not found:
        yield about | _skipped(" ".join(done.stderr.strip().splitlines()[-LINES_OF_ERROR:]) or "said nothing")


def _members(result: dict[str, Any]) -> dict[str, Any]:
    """MEMBERS, as far as they follow from what a script that looks up single numbers prints."""
    known: dict[str, Any] = {"activation": "look-up"} if "op" in result else {}
    if result.get("op") == "lookup_4bit":
        known["lookup_error_4bit"] = result.get("lookup_error")
    return dict.fromkeys(MEMBERS) | known


def _skipped(why: str) -> dict[str, Any]:
    return {"skipped": why}


def ours(folder: Path, test: Split, *, count: int) -> dict[str, Any]:
    """Returns the same members for a network of ours: client and server back to back in this process.

    Args:
        folder: of the Program and its card.
        test: the images; the first ``count`` are encrypted.
        count: of images.
    """
    program, threads = Program.load(folder), available_cpus()
    card = read_card(folder)
    parameter_set = served_params(program)
    started = time.perf_counter()
    keys = ClientKeys.generate(parameter_set)
    bundle = keys.evaluation_keys(threads)
    keygen = time.perf_counter() - started
    server_keys = bundle.expand(threads)
    pixels = program.integers(test.images[:count]).reshape(count, -1) * program.input.delta
    seconds, digits = [], []
    for image in pixels:
        ciphertext = ckks.encrypt(keys, KEY_ID, image)
        *_, last = evaluate.run(program, server_keys, [[ciphertext]], threads=threads)
        assert last.answer is not None, "the last item of an evaluation carries the answer"
        seconds.append(last.seconds)
        digits.append(int(program.logits(ckks.decrypt(keys, last.answer)).argmax()))
    figures = spread(seconds)
    return envelope("peers", params=parameter_set) | {
        "peer": "ciphershift",
        "system": f"ciphershift, {program.name}",
        "version": version("ciphershift"),
        "program": program.digest,
        "activation": "look-up",
        "topology": _topology(program),
        "settings": f"{parameter_set.name}, {program.profile} profile",
        "lookup_error_4bit": noise.lookup_error(parameter_set),
        "lookups": program.lookups,
        "accuracy_clear": card["accuracy_quantised"],
        "accuracy_simulated": card["accuracy_simulated"],
        "accuracy_encrypted": float(np.mean(np.asarray(digits) == test.labels[:count])),
        "accuracy_encrypted_n": count,
        "seconds_per_image": figures["median_s"],
        "p10_s": figures["p10_s"],
        "p90_s": figures["p90_s"],
        "keygen_s": round(keygen, 3),
        "upload_bytes": CkksCiphertext.nbytes(parameter_set, pixels.shape[1]),
        "key_bytes": EvaluationKeys.nbytes(parameter_set),
    }


def _topology(program: Program) -> str:
    shapes = [
        "x".join(map(str, stage.output_shape)) for stage in program.stages if stage.layer.kind in ("conv", "linear")
    ]
    return ", ".join(shapes)
