# 'make help' lists what there is. Everything happens in a virtual environment of its own.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.trompe-installed
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint bench benchmarks mutants docs format clean

help:  ## list the targets
	@grep -E '^[a-z]+: .*##|^[a-z]+:  ##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv: $(STAMP)  ## create the virtual environment and install trompe into it

# The stamp is newer than pyproject.toml as long as what is installed fits it. torch and torchvision
# must come as a pair; 'trompe models' imports both, and says so in one line where they do not fit.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/trompe models --json > /dev/null
	@touch $@

demo: $(STAMP)  ## manipulate the explanation of a photo on a real network, results in demo/
	$(BIN)/trompe attack coffee --target-text "this explanation was manipulated" \
		--iterations 100 --output demo

test: lint  ## lint, check the types, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## one attack step against plain autograd and zennit, start-up times: a report
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py --print --processor-time --rounds 7 \
		--model tiny-vgg --method gradient --method lrp --method smoothgrad
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/startup.py --print

# REFERENCE: a clone of pankessel/adv_explanation_ref. WEIGHTS, PHOTOS: SqueezeNet 1.1 as safetensors
# and a folder of photos. IMAGES: an npz of validation images, as tiny-vgg was trained on.
# CIFAR, CIFAR_WEIGHTS: the same of the ResNet-20. Hours on one core.
benchmarks: $(STAMP)  ## measure everything anew and render the READMEs (see benchmarks/README.md)
	BIN=$(BIN) REFERENCE=$(REFERENCE) WEIGHTS=$(WEIGHTS) PHOTOS=$(PHOTOS) IMAGES=$(IMAGES) \
		CIFAR=$(CIFAR) CIFAR_WEIGHTS=$(CIFAR_WEIGHTS) bash benchmarks/all.sh

docs: $(STAMP)  ## build the documentation as a site: site/index.html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html; to search it: $(PYTHON) -m http.server --directory site"

mutants: $(STAMP)  ## break the code on purpose and see whether a test notices; hours
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cosmic-ray
	$(BIN)/python scripts/mutants.py

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built; the virtual environment stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis demo site
