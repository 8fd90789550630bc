# `make` alone lists the targets. Everything happens in .venv, which is made when it is missing and kept when it is not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo dev test lint train export serve protos env-example release-check bundle image lock bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

# A stamp a kind of install, so that a second run starts at once and a changed pyproject.toml or pin installs again.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Scanline needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(BIN)/python pyproject.toml constraints.txt
	@echo 'installing Scanline into $(VENV) ...'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo 'installing Scanline with what training, exporting and the tests need into $(VENV) ...'
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base ## serve the shipped model and read sample images through it
	@$(BIN)/scanline demo

dev: $(VENV)/.dev ## set up .venv with all extras: training, exporting, tests

test: $(VENV)/.dev ## run the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.dev ## ruff, mypy --strict, import borders
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# e.g. make train ARGS='--preset seed --data mnist --out runs/seed'
train: $(VENV)/.dev ## fit a network: make train ARGS='--preset seed --data uci --out runs/first'
	@$(BIN)/scanline train $(ARGS)

export: $(VENV)/.dev ## turn a run into ONNX files: make export ARGS='runs/first --out artifacts/first'
	@$(BIN)/scanline export $(ARGS)

serve: $(VENV)/.base ## serve over gRPC: make serve ARGS='--listen 0.0.0.0:50051'
	@$(BIN)/scanline serve $(ARGS)

protos: $(VENV)/.dev ## generate the stubs in scanline/v1 and scanline/inference again
	@$(BIN)/python -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		$$(find protos -name '*.proto')

env-example: $(VENV)/.base ## write .env.example again, after a change of settings
	@$(BIN)/python deploy/env_example.py > .env.example

release-check: $(VENV)/.dev ## build everything that is released, install it elsewhere, try it, list licences
	@$(BIN)/python deploy/release_check.py

# e.g. make bundle ARGS='aarch64 3.11'
bundle: $(BIN)/python ## make one archive that installs where there is no network: make bundle ARGS='aarch64 3.11'
	@PYTHON=$(BIN)/python deploy/bundle.sh $(ARGS)

image: ## build the image that serves, with its labels
	@VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' scanline/__init__.py) REVISION=$$(git rev-parse HEAD) \
		MODEL_SHA256=$$(sha256sum scanline/models/digits.int8.onnx | cut -d' ' -f1) docker compose build serve

# Every package that an image holds, with the hashes of its files for every platform. The CPU build of torch is not in the
# package index: make lock TORCH_CPU=FOLDER_OR_PAGE says where its wheel is.
LOCK := $(BIN)/uv pip compile --quiet --no-header --no-annotate --generate-hashes --constraint constraints.txt --python-version 3.11
lock: $(VENV)/.dev ## pin the images' packages by hash again, after a change of pyproject.toml or constraints.txt
	$(if $(TORCH_CPU),,$(error give TORCH_CPU=FOLDER_OR_PAGE, where the CPU-only wheel of torch is))
	@$(LOCK) --universal --output-file deploy/lock/base.txt pyproject.toml
	@echo hatchling | $(LOCK) --universal --output-file deploy/lock/build.txt -
	@echo pip | $(LOCK) --universal --output-file deploy/lock/pip.txt -
	@$(LOCK) --universal --output-file deploy/lock/train-cuda.txt --extra train --extra export pyproject.toml
	@$(LOCK) --python-platform x86_64-manylinux_2_28 --find-links $(TORCH_CPU) --output-file deploy/lock/train-cpu.txt \
		--extra train --extra export pyproject.toml

bench: $(VENV)/.dev ## measure what is claimed about speed
	@$(BIN)/python -m benchmarks.export.speed
	@$(BIN)/python -m benchmarks.train.speed
	@$(BIN)/python -m benchmarks.serving
	@$(BIN)/python -m benchmarks.score
	@$(BIN)/python -m benchmarks.serving.metrics
	@$(BIN)/python -m benchmarks.serving.reload
	@$(BIN)/python -m benchmarks.client

clean: ## remove what can be made again
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
