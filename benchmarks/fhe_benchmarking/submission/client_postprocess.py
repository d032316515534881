"""Write the predicted digits."""

from ciphershift.benchmarks.fhe_benchmarking.client_steps import postprocess
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance

postprocess(Instance.of_command_line())
