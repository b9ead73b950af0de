PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow lint clean
.DEFAULT_GOAL := help

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# torch first and pinned: left to itself the resolver takes the newest build with gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "needs Python 3.11 or later; name it: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@touch $@

demo: $(READY)   ## set up, benchmark seven methods on embedded data, show the table and the report
	$(BIN)/graphclust bench configs/suites/demo.yaml --jobs 2 --out runs/demo

test: $(READY)   ## set up and run the tests
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow

lint: $(READY)   ## ruff and mypy
	$(BIN)/ruff check graphclust fedclust simulations tests benchmarks
	$(BIN)/mypy

clean:           ## remove the environment
	rm -rf $(VENV)
