"""Prepare the network; the harness gives this step no size."""

from pathlib import Path

from ciphershift.benchmarks.fhe_benchmarking.server_steps import preprocess_model

preprocess_model(Path.cwd())
