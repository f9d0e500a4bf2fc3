# The commands of the project. `make` alone explains them. Each does its own set-up.

# Not PYTHON: that name is for setup.sh, and make would hand it on.
VENV_PYTHON := .venv/bin/python
# Two processes, each with whole files of tests, which share within a file what is expensive; `make test JOBS=4` for more.
JOBS := 2
PYTEST = $(VENV_PYTHON) -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo start test test-all lint format clean
# One environment, one installation at a time, whatever -j says.
.NOTPARALLEL:

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: ## make the environment, fetch data and weights
	@./setup.sh

demo: ## set everything up and let a Llama write text
	@./setup.sh
	@$(VENV_PYTHON) run_llama.py --option generate

# Reading an edition needs one package more than students do.
start: ## make a workspace with the gaps open, for learning alone (DIR=build/start)
	@./setup.sh --no-assets
	@$(VENV_PYTHON) -c "import pydantic" 2>/dev/null || $(VENV_PYTHON) -m pip install --quiet -c constraints.txt pydantic
	@$(VENV_PYTHON) -m autograder start "$(or $(DIR),build/start)"

test: ## set the environment up and run the tests (a few minutes)
	@./setup.sh --dev --no-assets
	@$(PYTEST) -m "not slow"

test-all: test ## run the slow tests as well: whole trainings, killed and resumed, on several processes
	@$(PYTEST) -m slow

lint: ## check style and types
	@./setup.sh --dev --no-assets
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy
	@if command -v shellcheck >/dev/null; then shellcheck setup.sh .ci/run autograder/gradescope/setup.sh autograder/gradescope/run_autograder; else echo "shellcheck: not installed, skipped"; fi

format: ## lay the code out as `make lint` wants it
	@./setup.sh --dev --no-assets
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

clean: ## remove caches and build products; .venv, data, weights and the work in build/start stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name start -exec rm -rf {} +; fi
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
