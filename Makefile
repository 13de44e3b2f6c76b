# Everything a person or CI runs. `make` alone lists the targets. Options come from the environment
# or the command line: FOR=20 make demo, make demo RATE=1000.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/all.txt
STAMP := $(VENV)/.installed
# Compiled once, and not by each worker of the first run at once.
TESTS_STAMP := $(VENV)/.compiled-tests
# The demo needs a sixth of all packages, and whoever sees it first should not wait for the others.
DEMO_LOCK := requirements/demo.txt
DEMO_STAMP := $(VENV)/.installed-demo
COMPARE_LOCK := requirements/compare.txt
COMPARE_VENV := .venv-compare
COMPARE_STAMP := $(COMPARE_VENV)/.installed
# Most integration tests wait for real processes: more workers than cores. Unit tests compute.
QUICK_WORKERS ?= auto
TEST_WORKERS ?= 8
PARALLEL := --dist loadgroup --no-loadscope-reorder
CHAOS_REPORT := .pytest_cache/chaos
CHAOS_WORKERS ?= auto
ONLY ?=
RUFF_PATHS := backpack_bridge benchmarks bridge consumers simulator demo deploy docs examples tests

# Without byte code every worker and every process that a test starts compiles all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo quick test check fix docs chaos bench compare metrics lock clean up down

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install the locked dependencies
	@echo "Ready: $(BIN)"

demo: $(DEMO_STAMP) ## See it all work on this machine (FOR=20: end after 20 s; RATE=1000: frames a second)
	@$(BIN)/python -m demo

quick: $(STAMP) ## Run the unit tests but the simulator's (half a minute)
	@$(BIN)/pytest -q --numprocesses $(QUICK_WORKERS) tests/unit --ignore tests/unit/simulator

test: $(TESTS_STAMP) ## Run the unit and integration tests (4 minutes on two cores)
	@$(BIN)/pytest -q --numprocesses $(TEST_WORKERS) $(PARALLEL) -m "not long" \
		tests/unit tests/integration

check: $(TESTS_STAMP) ## What CI runs: format, lint, types, import rules, `make test`, the longer tests
	@$(BIN)/ruff format --check $(RUFF_PATHS)
	@$(BIN)/ruff check $(RUFF_PATHS)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q --numprocesses $(TEST_WORKERS) $(PARALLEL) \
		tests/unit tests/integration tests/long

fix: $(STAMP) ## Format, and mend what the linter can
	@$(BIN)/ruff check --fix $(RUFF_PATHS) || true
	@$(BIN)/ruff format $(RUFF_PATHS)

docs: $(STAMP) ## Write the generated documents anew
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m deploy.dashboard

chaos: $(STAMP) ## Run the longest tests: kills, fail-overs, drills (ONLY="random_kills or bridges": these)
	@rm -rf $(CHAOS_REPORT)
	@CHAOS_REPORT=$(CHAOS_REPORT) $(BIN)/pytest -q tests/chaos -k "$(ONLY)" --numprocesses $(CHAOS_WORKERS) --dist worksteal; code=$$?; \
		$(BIN)/python -m tests.support.tally $(CHAOS_REPORT); exit $$code

bench: $(STAMP) ## Measure the bridge beside other ways of doing the same (BENCH_ONLY=bridge, BENCH_ROUNDS=3)
	@$(BIN)/python -m benchmarks

compare: $(STAMP) $(COMPARE_STAMP) ## Measure it beside other tools, and break things: docs/compare.md (COMPARE_ONLY=ccxt)
	@$(BIN)/python -m benchmarks.compare

metrics: $(STAMP) ## Print how the code is shaped: callbacks, stores, chains, comments, by package
	@$(BIN)/python -m tests.support.shape

lock: ## Write requirements/ anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "error: make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	@uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --quiet --output-file $(LOCK)
	@for extra in runtime simulator demo; do \
		uv pip compile pyproject.toml -c $(LOCK) --universal --python-version 3.11 \
			--extra $$(echo $$extra | sed s/runtime/metrics/) \
			$$([ $$extra != demo ] || echo --group build) \
			--generate-hashes --no-emit-index-url --quiet --output-file requirements/$$extra.txt; \
	done
	@uv pip compile --group compare --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --quiet --output-file $(COMPARE_LOCK)
# bpx-py asks for an older cryptography than ccxt, and works with the newer one.
	@echo "cryptography>=50" | uv pip compile --group clients --override - --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
		--output-file requirements/clients.txt

clean: ## Remove the environment, caches and the demo's leftovers (data/ stays)
	@rm -rf $(VENV) $(COMPARE_VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

up: ## Start Redis, bridge and consumers with docker compose
	@docker compose version >/dev/null 2>&1 || { echo "error: make up needs docker with its compose plugin: https://docs.docker.com/compose/install/" >&2; exit 1; }
	@docker compose up --detach --build --wait

down: ## Stop what `make up` started (its data stays)
	@docker compose down

# An environment that already has every locked package, is taken as it is.
$(STAMP): $(LOCK) requirements/setup.sh
	@sh requirements/setup.sh $(VENV) $(LOCK)
	@touch $@

$(TESTS_STAMP): $(STAMP)
	@$(BIN)/pytest --quiet --collect-only tests/unit tests/integration tests/long >/dev/null || true
	@touch $@

$(DEMO_STAMP): $(DEMO_LOCK) requirements/setup.sh
	@sh requirements/setup.sh $(VENV) $(DEMO_LOCK)
	@touch $@

$(COMPARE_STAMP): $(COMPARE_LOCK) benchmarks/compare/install.py
	@$(BIN)/python -m benchmarks.compare.install $(COMPARE_VENV) $(COMPARE_LOCK)
	@touch $@
