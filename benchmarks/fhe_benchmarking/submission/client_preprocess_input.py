"""Turn the text of pixels into integers."""

from ciphershift.benchmarks.fhe_benchmarking.client_steps import preprocess_input
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance

preprocess_input(Instance.of_command_line())
