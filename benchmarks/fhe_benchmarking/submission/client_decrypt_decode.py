"""Decrypt the logits of each image."""

from ciphershift.benchmarks.fhe_benchmarking.client_steps import decrypt_result
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance

decrypt_result(Instance.of_command_line())
