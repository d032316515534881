"""A plugin of pytest (-p tests.support.other_kernel): all tests use the kernel that lies in the folder KERNEL_UNDER_TEST."""

import importlib.util
import os
import sys
from pathlib import Path

NAME = "ciphershift.he_layers.native._kernel"

(library,) = Path(os.environ["KERNEL_UNDER_TEST"]).glob("ciphershift/he_layers/native/_kernel.*.so")
spec = importlib.util.spec_from_file_location(NAME, library)
assert spec is not None and spec.loader is not None
kernel = importlib.util.module_from_spec(spec)
sys.modules[NAME] = kernel
spec.loader.exec_module(kernel)

from ciphershift.he_layers import native  # noqa: E402

native._kernel = kernel  # type: ignore[attr-defined]
