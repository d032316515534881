"""Encrypt image by image."""

from benchmarks.fhe_benchmarking.client_steps import encrypt_input
from benchmarks.fhe_benchmarking.instance import Instance

encrypt_input(Instance.of_command_line())
