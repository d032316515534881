"""Write the predicted digits."""

from benchmarks.fhe_benchmarking.client_steps import postprocess
from benchmarks.fhe_benchmarking.instance import Instance

postprocess(Instance.of_command_line())
