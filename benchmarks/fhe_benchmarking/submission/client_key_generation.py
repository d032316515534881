"""Make secret and evaluation keys."""

from ciphershift.benchmarks.fhe_benchmarking.client_steps import generate_keys
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance

generate_keys(Instance.of_command_line())
