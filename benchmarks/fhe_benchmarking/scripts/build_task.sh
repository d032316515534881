#!/usr/bin/env bash
# The harness calls this before a run, with the submission's folder. Installs the library that the steps call, if it is missing:
# from the checkout named by CIPHERSHIFT_SOURCE (benchmarks are not in the wheel). Needs Python 3.11 or later and a C++17 compiler.
set -euo pipefail
if ! python3 -c "import ciphershift.benchmarks.fhe_benchmarking" 2>/dev/null; then
    python3 -m pip install -e "$(realpath "${CIPHERSHIFT_SOURCE:?set it to a checkout of ciphershift}")[client,server]"
fi
# Where the harness looks for the steps, under the names of its reference's executables.
mkdir -p "$1/build"
for step in "$1"/*.py; do
    executable="$1/build/$(basename "$step" .py)"
    { echo '#!/usr/bin/env python3'; cat "$step"; } > "$executable"
    chmod +x "$executable"
done
