# `make demo` and `make test` set up everything they need in .venv, from the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint docs benchmarks check-install clean

EXTRAS ?= all

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tunelater needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/tunelater demo --force

test: $(READY) lint docs
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site; warnings are errors.
docs: $(READY)
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site

benchmarks: $(READY)
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/tuning.py speed
	$(BIN)/python benchmarks/tuning.py null

check-install:
	$(PYTHON) .ci/check_install.py $(EXTRAS)

clean:
	rm -rf .venv
