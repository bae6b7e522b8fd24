# make demo: the main job, from nothing to a report. make test: the test suite without its slow tests, make test-slow: those. Each makes .venv first.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
PYTEST = $(RUN) pytest -q -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-slow lint types environment environment-test environment-dev
.NOTPARALLEL:

# FULL=1: three seeds and the long suite of attacks. ARGS="--train.epochs 2": any other setting.
demo: environment
	$(RUN) counterpart demo $(if $(FULL),--full) $(ARGS)

# ARGS="-k budget": any option of pytest.
test: environment-test
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: environment-test
	$(PYTEST) -m slow $(ARGS)

lint: environment-dev
	$(RUN) ruff check
	$(RUN) ruff format --check

types: environment-dev
	$(RUN) mypy

environment environment-test environment-dev:
	@tools/environment $(VENV) $(PYTHON) $(word 2,$(subst -, ,$@))
