# Everything runs in .venv, which the first target that needs it builds. Needs Python 3.11 or later and a C++17 compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
KERNEL := $(shell find he_layers/native -name '*.?pp' -o -name CMakeLists.txt)

.PHONY: setup demo page test test-slow sanitize arm64 fuzz lint docs locks pictures stub clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt $(KERNEL)
	@echo "building $(VENV) and the C++ kernel: one to four minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[client,page,server]'
	touch $@

# Torch and the tools are for training and testing alone.
$(VENV)/.ready-dev: pyproject.toml constraints.txt $(KERNEL)
	@echo "building $(VENV) with torch and the tools, and the C++ kernel: three to six minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.ready $@

demo: setup
	$(BIN)/ciphershift bench demo

page: setup
	$(BIN)/ciphershift page

# Four processes for two cores, each of which takes whole files, in order: much of the time is spent waiting for servers that start.
test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# What takes minutes: the built package in clean environments, benchmarks in small.
test-slow: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# The kernel's tests with a kernel that ends the process at an access outside of an array or an undefined operation.
SANITIZED := build/sanitized
$(SANITIZED)/.ready: $(VENV)/.ready-dev $(KERNEL)
	$(INSTALL) --no-deps --upgrade --target $(SANITIZED) -C cmake.define.SANITIZE=ON -C install.strip=false -C build-dir=build/sanitized-cmake .
	touch $@

# Hash seeds decide which examples hypothesis tries. A report goes to a file; its head is printed last.
sanitize: $(SANITIZED)/.ready
	rm -f $(SANITIZED)/report.*
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/$(SANITIZED)/report UBSAN_OPTIONS=print_stacktrace=1 PYTHONHASHSEED=0 \
		KERNEL_UNDER_TEST=$(SANITIZED) CIPHERSHIFT_TEST_EXAMPLES=150 $(BIN)/python -m pytest -p tests.support.other_kernel -p no:xdist --capture=no \
		tests/he_layers/native tests/he_layers/test_graphs.py $(ARGS) || { head -n 20 $(SANITIZED)/report.*; exit 1; }

# The kernel for 64-bit ARM, cross-compiled, and its tests in an emulator, whose times mean nothing.
# Needs Debian with g++-aarch64-linux-gnu, cmake, ninja-build, qemu-user and mmdebstrap.
ARM64 := $(CURDIR)/build/arm64
ARM64_INSTALL := $(BIN)/python -m uv pip install --quiet --python $(ARM64)/bin/python --constraints constraints.txt
$(ARM64)/root:
	mkdir -p $(@D)
	mmdebstrap --variant=extract --arch=arm64 --include=python3,libpython3-dev,libstdc++6 "$$(. /etc/os-release && echo $$VERSION_CODENAME)" $@

# Debian's Python for arm64, of an environment of its own; the oldest processor of this kind that is still common.
$(ARM64)/bin/python: | $(ARM64)/root
	mkdir -p $(@D)
	echo "home = $(ARM64)/root/usr/bin" >$(ARM64)/pyvenv.cfg
	printf '#!/bin/sh\nexec qemu-aarch64 -cpu cortex-a72 -L %s -0 "$$0" %s "$$@"\n' $(ARM64)/root $(ARM64)/root/usr/bin/python3 >$@
	chmod +x $@

$(ARM64)/.ready: $(VENV)/.ready pyproject.toml constraints.txt $(KERNEL) | $(ARM64)/bin/python
	$(INSTALL) uv
	$(ARM64_INSTALL) nanobind scikit-build-core pytest pytest-timeout hypothesis
	CXX=aarch64-linux-gnu-g++ CXXFLAGS="-idirafter $(ARM64)/root/usr/include" CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64" \
		$(ARM64_INSTALL) --no-build-isolation -e '.[client,server]'
	touch $@

arm64: $(ARM64)/.ready
	$(ARM64)/bin/python -m pytest -o timeout=0 tests/golden tests/he_layers/native $(ARGS)

# Fuzzing led by coverage: containers, requests, Programs and what a connection brings. What it finds it writes to build/fuzz. To search on: make fuzz FUZZ=-max_total_time=3600
FUZZ := -seed=1 -runs=8000
fuzz: $(VENV)/.ready-dev
	for target in containers requests programs connections; do $(BIN)/python -m tests.fuzz.$$target $(FUZZ) || exit 1; done

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of the documents; a broken link is an error. Open build/docs/index.html.
docs: $(VENV)/.ready-dev
	$(BIN)/python -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --quiet -c docs -d build/doctrees . build/docs

# The diagrams of docs/architecture.md, drawn from the code.
pictures: $(VENV)/.ready-dev
	$(BIN)/python docs/pictures/draw.py

# The files that the container image installs: versions of constraints.txt, with the SHA-256 of each of their files.
LOCK := $(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --constraints constraints.txt --generate-hashes --no-annotate \
	--custom-compile-command 'make locks'
locks: $(VENV)/.ready-dev
	$(INSTALL) uv
	$(LOCK) deploy/locks/build.in --output-file deploy/locks/build.txt
	$(LOCK) pyproject.toml --extra server --extra postgres --extra s3 --extra otel --output-file deploy/locks/server.txt
	$(LOCK) pyproject.toml --extra server --extra postgres --extra s3 --extra otel --extra gpu --output-file deploy/locks/gpu.txt

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# The kernel's types, for editors and mypy.
stub: $(VENV)/.ready-dev
	$(BIN)/python -m nanobind.stubgen -m ciphershift.he_layers.native._kernel -o he_layers/native/_kernel.pyi
