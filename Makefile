# The development commands. All that they need is Python 3.10 or newer with venv and pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCE := $(shell find doow_serverless -name '*.py') pyproject.toml

# Tests are independent; those of one file share what is costly to start. More of them than there are
# cores, since most wait most of the time; whole campaigns and builds do not.
SIDE_BY_SIDE := -q --dist loadfile -n
# Code that runs in other processes is not measured, so that their timing is what it is. Two groups
# that take as long as each other, one for each core.
COVERED_FIRST := tests/unit tests/conformance tests/platforms/wsgi
COVERED_SECOND := tests/local tests/runtimes/aws tests/platforms/asgi tests/platforms/aws \
  $(wildcard tests/integration/test_replay*.py)

# Those whose subject is a process of its own, which is measured as well.
PROCESSES := tests/runtimes/azure tests/runtimes/vercel \
  $(addprefix tests/integration/test_,send.py doctor.py invoke.py)

# Interpreters of one version: pyenv's real ones, since its shims refuse versions that are not chosen.
python_of = $(firstword $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python3) $(shell command -v python$(1)))
ON_AZURE  := $(foreach v,3.10 3.11 3.12 3.13,$(if $(call python_of,$(v)),.venv-azure-$(v)/.wheel))
ON_NEWEST := $(lastword $(ON_AZURE))
ON_VERCEL := $(if $(call python_of,3.12)$(call python_of,3.13),.venv-vercel/.wheel)

# What stands on requests and urllib3, and on the extras, at the oldest that pyproject.toml allows.
AT_MINIMUM := tests/unit/cli tests/unit/delivery tests/unit/handlers \
  $(addprefix tests/local/test_,accepted.py command.py page.py) $(addprefix tests/integration/test_,tls.py \
  transport_faults.py odd_servers.py kept_connections.py surroundings.py budget.py)

.PHONY: test test-all covered-first covered-second unit runtimes minimum lint demo outage campaign small mutants \
  bench fleet lock clean

test: $(VENV)/.wheel $(ON_NEWEST) $(ON_VERCEL) lint  ## all behaviour, against the built wheel
	$(BIN)/pytest $(SIDE_BY_SIDE) 3 -m 'not extensive'

test-all: $(VENV)/.wheel .venv-sam/.deps $(ON_AZURE) $(ON_VERCEL) minimum  ## what `make test` leaves out, and coverage
	$(BIN)/pytest $(SIDE_BY_SIDE) 2 -m extensive
	$(BIN)/coverage erase
	$(MAKE) --no-print-directory -j 2 -O covered-first covered-second
	$(BIN)/coverage run --rcfile tests/processes.coveragerc $(BIN)/pytest -q -m 'not extensive' $(PROCESSES)
	$(BIN)/coverage combine -q && $(BIN)/coverage report

covered-first:
	$(BIN)/coverage run $(BIN)/pytest -q -m 'not extensive' $(COVERED_FIRST)

covered-second:
	$(BIN)/coverage run $(BIN)/pytest -q -m 'not extensive' $(COVERED_SECOND)

unit: $(VENV)/.wheel lint  ## the unit tests alone
	$(BIN)/pytest -q tests/unit

runtimes: $(VENV)/.wheel $(ON_AZURE) $(ON_VERCEL)  ## that the stand-ins for the platforms do as the platforms do
	$(BIN)/pytest -q tests/runtimes

minimum: .venv-minimum/.wheel  ## the transport and the command with the oldest dependencies that are allowed
	.venv-minimum/bin/pytest $(SIDE_BY_SIDE) 2 -m 'not extensive' $(AT_MINIMUM)

lint: $(VENV)/.wheel
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema -q --builtin-schema vendor.github-workflows examples/*/.github/workflows/*.yml

demo: $(VENV)/.wheel $(ON_NEWEST) $(ON_VERCEL)  ## the examples under their platforms' own runtimes; PAGE=1 keeps the page open
	$(BIN)/python examples/demo.py $(if $(ON_VERCEL),--vercel-python .venv-vercel/bin/python) \
	  $(if $(ON_NEWEST),--azure-python $(ON_NEWEST:%/.wheel=%/bin/python)) $(if $(PAGE),--page)

outage: $(VENV)/.wheel  ## examples/lambda under AWS's runtime client, through an outage of Doow
	$(BIN)/python examples/lambda/demo.py

campaign: $(VENV)/.wheel  ## 2,000 invocations and 10,000 fleets with faults at random, and ten million facts; SEED=n repeats one
	$(BIN)/python -m tests.campaign --invocations 2000 $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.campaign.fleets $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.campaign.stories $(if $(SEED),--seed $(SEED))

small: $(VENV)/.wheel  ## 50 cold starts and 20 kills on a quarter, a seventh and a fourteenth of a core; as root
	$(BIN)/python -m tests.campaign.small_functions

mutants: .venv-mutants/.deps  ## that the unit tests notice when delivery is broken: the state of the outbox, its driver, the flush; a quarter of an hour
	.venv-mutants/bin/mutmut run
	.venv-mutants/bin/mutmut results

bench: $(VENV)/.wheel  ## figures, side by side with a bare requests.post
	$(BIN)/python -m benchmarks

fleet: $(VENV)/.wheel  ## a fleet at twenty times the limit, in three ways; some two minutes. Its picture wants `uv pip install --group plot`
	$(BIN)/python -m benchmarks.fleet --picture docs/fleet.svg

# The tests run against what users install, so the wheel is built anew when a source file changes.
$(VENV)/.wheel: $(VENV)/.deps $(SOURCE)
	rm -rf dist && $(BIN)/pip wheel -q --no-deps --no-build-isolation -w dist .
	$(BIN)/pip install -q --no-deps --force-reinstall dist/*.whl
	touch $@

$(VENV)/.deps: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# Apart from the rest, since it pins what the rest wants newer. Its own lock is complete, and pip
# cannot match the extras that it names: hence --no-deps.
.venv-sam/.deps: requirements/sam.txt
	$(PYTHON) -m venv .venv-sam
	.venv-sam/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# Apart, since it is needed for one target alone.
.venv-mutants/.deps: requirements/mutants.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	touch $@

# All dependencies at their declared minimum.
.venv-minimum/.deps: requirements/minimum.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	touch $@

# The platforms' own runtimes, for each Python that is here, in environments of their own: they stand
# for the machines of Azure and Vercel, where our wheel arrives beside them.
.venv-azure-%/.deps: requirements/azure.txt requirements/azure-runtime.txt
	$(call python_of,$*) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/azure.txt
	$(@D)/bin/pip install -q --disable-pip-version-check --no-deps --ignore-requires-python --require-hashes \
	  -r requirements/azure-runtime.txt
	touch $@

.venv-vercel/.deps: requirements/vercel.txt
	$(firstword $(call python_of,3.12) $(call python_of,3.13)) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	touch $@

$(ON_AZURE) $(ON_VERCEL) .venv-minimum/.wheel: %/.wheel: %/.deps $(VENV)/.wheel
	$(@D)/bin/pip install -q --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	touch $@

UV_COMPILE = $(BIN)/uv pip compile -q --universal --generate-hashes --no-annotate --no-emit-index-url \
  --custom-compile-command 'make lock' $(LOCKFLAGS)

lock: $(VENV)/.deps  ## resolve the development environments anew, for every supported Python
	$(UV_COMPILE) --python-version 3.10 --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(UV_COMPILE) --python-version 3.10 --group sam pyproject.toml -o requirements/sam.txt
	$(UV_COMPILE) --python-version 3.10 --resolution lowest-direct --all-extras --group minimum pyproject.toml \
	  -o requirements/minimum.txt
	$(UV_COMPILE) --python-version 3.10 --group mutants pyproject.toml -o requirements/mutants.txt
	$(UV_COMPILE) --python-version 3.10 requirements/azure.in -o requirements/azure.txt
	$(UV_COMPILE) --python-version 3.13 --no-deps requirements/azure-runtime.in -o requirements/azure-runtime.txt
	$(UV_COMPILE) --python-version 3.12 requirements/vercel.in -o requirements/vercel.txt

clean:
	rm -rf $(VENV) .venv-sam .venv-minimum .venv-azure-* .venv-vercel .venv-mutants mutants dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
