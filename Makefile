# `make demo` and `make test` set up everything they need in .venv, from the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test browser lint docs benchmarks check-install clean

EXTRAS ?= all

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tunelater needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/tunelater demo --force

test: $(READY) lint docs browser
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The report's page is tested in Chromium, where there is one, or where it can be had without being asked for a password.
browser:
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || { \
	  root=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); command -v apt-get >/dev/null && \
	  echo "Installing Chromium for the browser tests" && \
	  $$root apt-get -qq -o Acquire::http::Timeout=20 update >/dev/null 2>&1 && \
	  DEBIAN_FRONTEND=noninteractive $$root apt-get -qq install -y --no-install-recommends chromium >/dev/null 2>&1; } || \
	  echo "There is no Chromium, and none could be installed: the browser tests will be skipped"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings
	$(BIN)/oxfmt --check '**/*.mjs'

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
