# make demo: the main job, from nothing to a report. make test: the test suite without its slow tests, make test-slow: those, make test-reference: comparisons with published implementations. make docs: the site. Each makes .venv first.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
PYTEST = $(RUN) pytest -q -n auto --maxprocesses 4 --dist worksteal --durations 15

.PHONY: demo test test-slow test-reference lint types docs audit environment environment-test environment-dev environment-docs environment-audit environment-bench
.NOTPARALLEL:

# FULL=1: three seeds and the long suite of attacks. ARGS="--train.epochs 2": any other setting.
demo: environment
	$(RUN) counterpart demo $(if $(FULL),--full) $(ARGS)

# ARGS="-k budget": any option of pytest.
test: environment-test
	$(PYTEST) -m "not slow and not reference" $(ARGS)

test-slow: environment-test
	$(PYTEST) -m "slow and not reference" $(ARGS)

# Beside the implementations that others published. Each must be there: a test that skips compares nothing. torchattacks
# comes without what it asks for, which is a version of requests of 2021.
test-reference: environment-bench
	$(RUN) pip --disable-pip-version-check install --quiet --no-deps --constraint constraints.txt torchattacks
	$(VENV)/bin/python -c "import foolbox, pyautoattack, pytorch_grad_cam, torchattacks, torchcam"
	$(PYTEST) -m reference $(ARGS)

lint: environment-dev
	$(RUN) ruff check
	$(RUN) ruff format --check

types: environment-dev
	$(RUN) mypy

# The site, in docs/_build/html. A warning is a failure, a broken link among them. A notebook runs again where its cells changed:
# remove docs/_build to run them all.
docs: environment-docs
	$(RUN) sphinx --quiet --fail-on-warning --keep-going --conf-dir docs . docs/_build/html $(ARGS)
	@echo "docs/_build/html/docs/index.html"

# Known vulnerabilities of what constraints.txt pins, and licences of what is installed. Needs a network, so it is no test.
audit: environment-dev environment-audit
	$(VENV)/bin/python tools/licences
	$(RUN) pip_audit --strict --no-deps --disable-pip --requirement constraints.txt

environment environment-test environment-dev environment-docs environment-audit environment-bench:
	@tools/environment $(VENV) $(PYTHON) $(word 2,$(subst -, ,$@))
