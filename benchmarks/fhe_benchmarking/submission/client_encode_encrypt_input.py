"""Encrypt image by image."""

from ciphershift.benchmarks.fhe_benchmarking.client_steps import encrypt_input
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance

encrypt_input(Instance.of_command_line())
