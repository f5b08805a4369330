# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The variable hides the theme's note about other programs.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Stamps: the environment is installed again only when pyproject.toml is newer than they are.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BENCH := $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs bench

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED) ## corpus to searched, trained and measured model: recipes/demo.yaml, 11 to 14 minutes
	$(BIN)/automoe run recipes/demo.yaml

test: $(INSTALLED_DEV) ## run every test
	$(BIN)/pytest -n 2 --dist loadfile

check: $(INSTALLED_DEV) ## formatting, lint, types, floors and documentation, changing no code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(MKDOCS) --quiet

format: $(INSTALLED_DEV) ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED_DEV) ## build the documentation into site/; open site/index.html
	$(MKDOCS)

bench: $(INSTALLED_BENCH) ## run every benchmark in benchmarks/, an hour or more
	@set -e; for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(BIN)/python "$$benchmark"; \
	done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "AutoMoE needs Python 3.11 or newer, and '$(PYTHON)' is not ($$($(PYTHON) -V 2>&1 | head -1))."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; } >&2

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_BENCH): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench,dev]'
	@touch $(INSTALLED) $@
