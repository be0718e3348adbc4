# The development commands. All that they need is Python 3.10 or newer with venv and pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCE := $(shell find doow_serverless -name '*.py') pyproject.toml

.PHONY: test lint demo campaign bench lock clean

test: $(VENV)/.wheel .venv-sam/.deps lint  ## everything that must hold, against the built wheel
	$(BIN)/coverage erase
	$(BIN)/coverage run $(BIN)/pytest
	$(BIN)/coverage combine -q && $(BIN)/coverage report

lint: $(VENV)/.wheel
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(VENV)/.wheel  ## examples/lambda under AWS's runtime client, delivering to the local ingest
	$(BIN)/python examples/lambda/demo.py

campaign: $(VENV)/.wheel  ## 2,000 invocations with faults at random; SEED=n repeats one
	$(BIN)/python -m tests.campaign --invocations 2000 $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.wheel  ## figures, side by side with a bare requests.post
	$(BIN)/python -m benchmarks

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

lock: $(VENV)/.deps  ## resolve the development environments anew, for every supported Python
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	  --all-extras --group dev pyproject.toml -o requirements/dev.txt --custom-compile-command 'make lock' $(LOCKFLAGS)
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate --no-emit-index-url \
	  --group sam pyproject.toml -o requirements/sam.txt --custom-compile-command 'make lock' $(LOCKFLAGS)

clean:
	rm -rf $(VENV) .venv-sam dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
