#!/usr/bin/env bash
# Makes the environments of the peers under build/peers: benchmarks/peers/install.sh [NAME...]
# PYTHON_<NAME> chooses the interpreter: openfhe's wheels need CPython 3.10 (see its requirements.txt), the others take 3.11.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$here/../../build/peers
failed=0

# The path of an interpreter that runs: the one on PATH, or one of pyenv's, whose shims refuse versions that are not switched on.
interpreter() {
    if "$1" --version >/dev/null 2>&1; then
        echo "$1"
    else
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/*/bin/$1" | head -n 1 | grep . || echo "$1"
    fi
}

for name in "${@:-tenseal concrete_ml openfhe orion orion2}"; do
    for peer in $name; do
        choice=PYTHON_$(echo "$peer" | tr '[:lower:]' '[:upper:]')
        default=python3.11
        [ "$peer" = openfhe ] && default=python3.10
        python=$(interpreter "${!choice:-$default}")
        if "$python" -m venv "$target/$peer" && "$target/$peer/bin/python" -m pip install --quiet -r "$here/$peer/requirements.txt"; then
            echo "$peer: ready in $target/$peer"
        else
            echo "$peer: cannot be installed here with $python (see above); it is left out of the comparison" >&2
            rm -rf "${target:?}/$peer"
            failed=1
        fi
    done
done
exit $failed
