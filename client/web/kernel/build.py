"""Compiles the client's half of the C++ kernel to WebAssembly: `python client/web/kernel/build.py` writes src/kernel-module.ts.

The compiler is clang, as the package ziglang brings it together with a C library for WebAssembly; one version of it gives the same bytes on
every machine. Of the C++ library there are headers alone: what they need at run time is in edge.cpp, so that the module imports nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ZIG = "0.17.1"
EDGE = Path(__file__).resolve().with_name("edge.cpp")
HEADERS = EDGE.parents[3] / "he_layers" / "native" / "src"
MODULE = EDGE.parents[1] / "src" / "kernel-module.ts"
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c++17", "-O3", "-msimd128"),
    *("-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-s", "-nostdinc++"),
    *("-D_LIBCPP_ABI_VERSION=1", "-D_LIBCPP_ABI_NAMESPACE=__1", "-D_LIBCPP_HAS_THREADS=0"),
    *("-D_LIBCPP_HARDENING_MODE=2", "-D_LIBCPP_HARDENING_MODE_DEFAULT=2", "-D_LIBCPP_ASSERTION_SEMANTIC_DEFAULT=2"),
)


def sources_digest() -> str:
    """Returns the SHA-256 of compiler, flags and all sources: what the module is made of."""
    digest = hashlib.sha256(" ".join((ZIG, *FLAGS)).encode())
    for path in _sources():
        digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compiled() -> bytes:
    """Returns the module, compiled now.

    Raises:
        SystemExit: the compiler is another version, or not there.
    """
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None or metadata.version("ziglang") != ZIG:
        raise SystemExit(f"the kernel is compiled by another version of ziglang: pip install ziglang=={ZIG}")
    library = Path(spec.origin).parent / "lib"
    includes = [f"-I{library / part / 'include'}" for part in ("libcxx", "libcxxabi")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *includes, f"-I{HEADERS}", "-o", str(out), str(EDGE)]
        subprocess.run(command, check=True)
        return out.read_bytes()


def module(code: bytes) -> str:
    """Returns the text of src/kernel-module.ts."""
    text = base64.b64encode(code).decode()
    return (
        "// Written by kernel/build.py; never edited.\n"
        f'export const SOURCES: string = "{sources_digest()}";\n'
        f'export const CODE: string = "{text}";\n'
    )


def _sources() -> list[Path]:
    """The edge and all headers of the kernel that it includes, sorted by name."""
    found, waiting = set[Path](), [EDGE]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [HEADERS / name for name in re.findall(r'#include "(.+)"', path.read_text(encoding="utf-8"))]
    return sorted(found, key=lambda path: path.name)


if __name__ == "__main__":
    MODULE.write_text(module(compiled()), encoding="utf-8")
