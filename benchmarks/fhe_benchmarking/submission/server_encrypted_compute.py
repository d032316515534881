"""Evaluate the network on each encrypted image."""

from ciphershift.benchmarks.fhe_benchmarking.instance import Instance
from ciphershift.benchmarks.fhe_benchmarking.server_steps import compute

compute(Instance.of_command_line())
