# make demo: the whole embedded experiment on all cores, then its tables.  make test: the tests.  make lint: style and types.
# make check: both of these, with the fast tests alone.
# make bench: what images cost, into benchmarks/README.md; make bench DEVICE=cuda: the same of a GPU.
# make docs: the documentation as a site, into build/docs (open build/docs/docs/index.html).
# make install: only .venv, for the calls of README.md and docs/slurm.md.
# Each starts again at once when repeated; only a changed requirements.lock or pyproject.toml installs anew.
SHELL := /bin/bash
OLD := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do $$p -c "$(OLD)" 2>/dev/null && echo $$p && break; done)
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet
RESULTS := results/fashion-demo/tables
RESULTS_OF := results/fashion-demo

.PHONY: demo install test lint check bench docs
demo: .venv/.installed
	.venv/bin/snakemake --workflow-profile workflow/profiles/local
	@cat $(RESULTS)/table{1,2,3,4}-summary.md

install: .venv/.installed

test: .venv/.installed
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: lint
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/pytest --quiet --numprocesses 2 tests/config tests/test_*config.py tests/test_members.py \
		tests/test_architecture.py tests/test_derived.py tests/test_rules.py tests/test_text.py tests/networks

DEVICE := cpu
BENCHMARK := $(if $(filter cuda,$(DEVICE)),benchmarks.gpu,benchmarks --results $(RESULTS_OF))
bench: .venv/.installed
	.venv/bin/python -m $(BENCHMARK)

docs: .venv/.installed
	.venv/bin/sphinx-build -W --keep-going --quiet -c docs . build/docs

lint: .venv/.installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --lint
	.venv/bin/mypy

.venv/.installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "ddrep needs Python 3.11 or newer: install it, or name it (make demo PYTHON=python3.x)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) --no-compile --requirement requirements.lock
	PYTHONWARNINGS=ignore .venv/bin/python -m compileall -qq -j 0 .venv/lib || true  # on all cores, where pip takes one; some are templates
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@
