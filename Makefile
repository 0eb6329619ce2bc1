# `make demo` and `make test` do all the set-up they need. A Python other than the
# default one: `make PYTHON=python3.12 demo`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test test-all lint format bench clean

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else "keras_alexnet needs Python 3.10 to 3.13, and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# Train on real images, look at the result, export it, and call the export from a
# program that has TensorFlow only.
demo: setup
	@rm -rf runs/demo
	$(BIN)/keras-alexnet train --recipe digits --run-dir runs/demo
	$(BIN)/keras-alexnet export runs/demo
	$(BIN)/python examples/serve_saved_model.py runs/demo/export examples/images/*.png
	@echo "Curves, filters and predictions are in runs/demo/figures."

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes: most of a test is Python, which traces on one core.
test: setup lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: setup lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: setup
	$(BIN)/keras-alexnet benchmark

clean:
	rm -rf $(VENV) build dist runs *.egg-info
