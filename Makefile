# Every target makes the virtual environment first if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ONNXRUNTIME_WEB := 1.30.0

# Python keeps its bytecode: the tests start many processes, each of which would compile the whole package again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test test-devices test-docs test-quick lint docs browser clean

install: $(READY)

demo: $(READY)
	$(BIN)/hwnas demo --out runs/demo

# Four tests at a time on two processors, because some wait for other processes; none times this machine or needs all of it.
# Files keep their order: by default the longest would come last and leave processors idle. Threads that wait do so without
# computing, which would take the processors from other tests.
AT_A_TIME := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n

test: $(READY)
	$(AT_A_TIME) 4 --dist loadfile --no-loadscope-reorder -m "not alone and not documentation"

# What times this machine or needs all of it, one test at a time. A moment of noise may fail a test, a fault fails it twice.
AGAIN := --last-failed --last-failed-no-failures none

test-devices: $(READY)
	devices='alone and not documentation'; files=$$(grep -rl "mark\.alone" tests --include="test_*.py"); \
	$(BIN)/python -m pytest -m "$$devices" $$files || $(BIN)/python -m pytest -m "$$devices" $$files $(AGAIN)

# The demo, every command of every page, and the site in a browser.
test-docs: $(READY)
	pages='documentation and not alone'; \
	$(AT_A_TIME) 2 -m "$$pages" tests/docs || $(AT_A_TIME) 2 -m "$$pages" tests/docs $(AGAIN)
	demo='documentation and alone'; files='tests/docs tests/runs/test_end_to_end.py'; \
	$(BIN)/python -m pytest -m "$$demo" $$files || $(BIN)/python -m pytest -m "$$demo" $$files $(AGAIN)

# For the edit loop: every test that takes less than half a second.
test-quick: $(READY)
	$(AT_A_TIME) 2 -m "not alone and not end_to_end and not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation's site, in site/: open site/index.html.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# What --device browser needs: onnxruntime-web from npm (--device page, too), Chromium where apt has it.
browser: node_modules/onnxruntime-web
	command -v chromium || command -v google-chrome || \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install --no-install-recommends chromium; }

node_modules/onnxruntime-web:
	npm install --prefix . --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
	  --fetch-retries=1 onnxruntime-web@$(ONNXRUNTIME_WEB)

clean:
	rm -rf $(VENV) node_modules runs build dist site *.egg-info
