# The two commands: `make demo` and `make test`. Both do all the set-up themselves, from a clean clone.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: help demo test check lint fmt bench prove wheel lock clean

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## the whole circle on the embedded Postgres and the simulator (ARGS=--once: prove it and exit)
	@$(BIN)/syncd demo $(ARGS)

# Types are checked beside the tests, which leave a processor idle now and then; either fails the whole. Bytecode is kept,
# whatever the environment says: else each worker compiles anew what the one before has compiled.
test: $(VENV)/.dev lint  ## lint, formats, types, floors and every test
	@$(BIN)/mypy > $(VENV)/types.txt 2>&1 & types=$$!; \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n $(JOBS) --dist loadgroup $(ARGS); tests=$$?; \
	  wait $$types; types=$$?; cat $(VENV)/types.txt; exit $$(( tests ? tests : types ))

check: $(VENV)/.dev lint  ## lint, formats and types alone
	$(BIN)/mypy

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.dev  ## format and mend what can be mended by machine
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.dev  ## print the figures of the README and which targets are met (ARGS=--strict: fail on a miss)
	$(BIN)/python -m benchmarks $(ARGS)

prove: $(VENV)/.dev  ## the long forms of the proofs; the sample is set by SYNCD_TEST_SEED=7, counts are printed at the end
	SYNCD_TEST_PROVE=1 $(BIN)/pytest -q -n $(JOBS) --dist loadgroup tests/properties tests/pipelines tests/process $(ARGS)

wheel: $(VENV)/.dev  ## build the wheel into dist/
	$(BIN)/pip wheel -q --no-deps -w dist .

lock:  ## write requirements*.txt anew from pyproject.toml (needs uv on the PATH)
	uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate -o requirements.txt
	uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate -c requirements.txt -o requirements-dev.txt

clean:  ## remove the environment and what tools leave behind (never the demo's data)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "syncd needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.12" >&2; exit 78; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 78; }

$(VENV)/.run: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
