PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: help install demo test lint types check clean

help:  ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Attar needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,hf,lora,sd]'
	touch $(STAMP)

install: $(STAMP)  ## Make the virtual environment and install into it

demo: $(STAMP)  ## Distill handwritten digits, judge the results, write a page
	$(BIN)/attar demo --out demo

test: $(STAMP)  ## Run all tests
	$(BIN)/python -m pytest

lint: $(STAMP)  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Check types, strictly
	$(BIN)/mypy

check: lint types test  ## All that CI runs

clean:  ## Remove the virtual environment and the caches of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
