"""The server's steps: it sees evaluation keys and ciphertexts; the import contracts keep secret keys from it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from ciphershift.benchmarks.fhe_benchmarking.instance import Instance, parameter_set, program, served_model, write
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.program import Program
from ciphershift.protocol.container import HEADER_BYTES, read_header
from ciphershift.server.settings import available_cpus


def preprocess_model(root: Path) -> None:
    """Loads and checks the network, and keeps it in the clear: the server owns it."""
    program().save(served_model(root))


def compute(instance: Instance) -> None:
    """Evaluates the network on each encrypted image."""
    started = time.perf_counter()
    network = Program.load(served_model(instance.root))
    params = parameter_set()
    bundle = instance.evaluation_keys.read_bytes()
    key_id = read_header(bundle[:HEADER_BYTES]).key_id
    keys = EvaluationKeys.from_bytes(bundle, params).expand(available_cpus())
    expanded = time.perf_counter()
    values = int(np.prod(network.input.shape))
    for upload in sorted(instance.uploads.iterdir()):
        image = CkksCiphertext.from_bytes(upload.read_bytes(), params, key_id, values)
        *_, last = evaluate.run(network, keys, [[image]], threads=available_cpus())
        assert last.answer is not None, "the last item of an evaluation carries the answer"
        write(instance.downloads / upload.name, last.answer.to_bytes())
        sys.stdout.write(f"         [server] image {upload.stem}: {last.seconds:.3f} s\n")
    computed = time.perf_counter()
    report = {"Key expansion": expanded - started, "Encrypted computation": computed - expanded}
    report["Total"] = computed - started
    text = json.dumps({step: round(seconds, 4) for step, seconds in report.items()}, indent=2)
    write(instance.server_report, text.encode())
