# One verb per habit; CI runs the same verbs. Needs make and a Python >= 3.11, nothing else. Works with GNU make 3.81 (macOS).
PYTHON := .venv/bin/python
SOURCES := api worker shared tests deploy
RESUMES := tests/integration/test_resume_equivalence.py tests/integration/test_resume_random_walk.py
TIERS := tests/unit tests/contract tests/integration tests/chaos tests/browser

.DEFAULT_GOAL := help
.PHONY: help run test check bench fuzz chaos lock

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

run: .venv/run.stamp ## start everything on this machine and print its address; settings: .env.example
	@exec $(PYTHON) deploy/run.py

test: .venv/dev.stamp ## all tests; installs what they need; ARGS="-k cancel" is handed to pytest
	@marks="$$($(PYTHON) -m tests.support.tools)" && exec $(PYTHON) -m pytest $(TIERS) -m "$$marks" $(ARGS)

check: .venv/dev.stamp ## lint, format, types, import directions, layout
	$(PYTHON) -m ruff check $(SOURCES)
	$(PYTHON) -m ruff format --check $(SOURCES)
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q tests/unit/test_layout.py

bench: .venv/dev.stamp ## measure; LINE=... picks one line of the table, QUICK=1 is a short run
	@LINE="$(LINE)" QUICK="$(QUICK)" $(PYTHON) -m tests.bench

fuzz: .venv/dev.stamp ## the property tests with many more examples
	HYPOTHESIS_PROFILE=fuzz $(PYTHON) -m pytest -m hypothesis tests/unit tests/contract $(RESUMES) $(ARGS)

chaos: .venv/dev.stamp ## kill, freeze and cut everything for long; SEED=7 MINUTES=10 SERVER=redis, else a fresh seed, 5, valkey
	@SEED="$(SEED)" MINUTES="$(MINUTES)" SERVER="$(SERVER)" $(PYTHON) -m tests.chaos

lock: ## make the lock files anew; UPGRADE=1 takes newer versions
	@sh deploy/lock.sh $(if $(UPGRADE),--upgrade)

.venv/run.stamp: requirements-run.txt deploy/venv.sh
	@sh deploy/venv.sh requirements-run.txt
	@touch $@

# The development lock holds the other one: what it installed is enough to run.
.venv/dev.stamp: requirements-dev.txt deploy/venv.sh
	@sh deploy/venv.sh requirements-dev.txt
	@touch .venv/run.stamp $@
