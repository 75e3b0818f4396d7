PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: help install demo test test-matrix lint types readme wheel docs check clean

help:  ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Attar needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs,hf,lora,sd]'
	touch $(STAMP)

install: $(STAMP)  ## Make the virtual environment and install into it

demo: $(STAMP)  ## Distill handwritten digits, judge the results, write a page
	$(BIN)/attar demo --out demo

test: $(STAMP)  ## Run all tests, on up to 8 cores (a process takes about 1.5 GB), in random order
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test-matrix: $(STAMP)  ## Run all tests with each instruction set, with one thread and two, with an empty home folder
	.ci/matrix

lint: $(STAMP)  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Check types, strictly
	$(BIN)/mypy

readme: $(STAMP)  ## Run the README's first commands as it gives them, and look for what they write
	$(BIN)/python .ci/readme.py Start "Distill, judge, look"

wheel: $(STAMP)  ## Build sdist and wheel, install the wheel into a new environment, run the README's main job and a short demonstration there
	.ci/wheel $(BIN)/python

docs: $(STAMP)  ## Build the documentation into site/, every link and name of code in it checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types docs wheel readme test  ## All that CI runs

clean:  ## Remove the virtual environment and the caches of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
