# Two commands do all the set-up: `make serve` and `make test`.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: serve test check clean

serve: ## Set up .venv without torch, and serve the shipped bundle on http://127.0.0.1:8000
	@deploy/install service
	@$(PYTHON) -m service

test: ## Install everything the tests need, and run them
	@deploy/install all
	@$(PYTHON) -m pytest

check: ## Lint, types and import rules (after `make test` has installed the tools)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
