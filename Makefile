## make demo       train on handwritten digits, test what came of it, draw it (2.5 minutes on 2 cores)
## make test       the test suite; PADDLE=2.6.2 runs it with that version, in an environment of its own
## make test-all   the test suite with its slow tests
## make lint       check style; `make format` puts right what can be
## make setup      install into .venv (the others call it); GPU=1 the GPU build, GPU=0 the CPU build,
##                 default: the GPU build where nvidia-smi works; PYTHON=… the Python to use (3.10 to 3.12)
## make clean      remove caches; runs and environments stay

# The newest GPU build on PyPI is 2.6.2; it uses the machine's CUDA 11.8 and cuDNN 8.6. Newer ones bring CUDA along:
#   make setup PADDLE_INDEX=https://www.paddlepaddle.org.cn/packages/stable/cu126/
# A mirror of PyPI is pip's own setting: PIP_INDEX_URL=https://pypi.tuna.tsinghua.edu.cn/simple make setup
ifndef GPU
GPU := $(shell nvidia-smi >/dev/null 2>&1 && echo 1 || echo 0)
endif
PADDLE_INDEX ?=
DEFAULT_PADDLE := $(if $(filter 1,$(GPU)),$(if $(PADDLE_INDEX),3.3.1,2.6.2),3.3.1)
PADDLE ?= $(DEFAULT_PADDLE)

# Of Paddle 2 it is always the GPU build, the one its users have; it runs without a GPU too.
BUILD := $(if $(filter 1,$(GPU))$(filter 2.%,$(PADDLE)),gpu,cpu)
PACKAGE := $(if $(filter gpu,$(BUILD)),paddlepaddle-gpu,paddlepaddle)==$(PADDLE)
VENV := .venv$(if $(filter-out $(DEFAULT_PADDLE),$(PADDLE)),-$(PADDLE))
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed-$(subst ==,-,$(PACKAGE))$(addprefix -,$(notdir $(PADDLE_INDEX:/=)))

# Each is started, not looked up: a name on PATH may be a shim with nothing behind it, or lack venv.
PYTHON ?= python3.12 python3.11 python3.10 python3 python
CHECK_PYTHON := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

.PHONY: help setup demo test test-all lint format clean

help:
	@sed -n 's/^## //p' Makefile

setup: $(STAMP)

# Always a new environment, and the stamp last: an interrupted or outdated one is never mended, but replaced.
$(STAMP): requirements/base.txt requirements/$(BUILD).txt requirements/dev.txt
	@for python in $(PYTHON); do \
		if "$$python" -c '$(CHECK_PYTHON)' >/dev/null 2>&1; then \
			echo "Installing $(PACKAGE) and the rest into $(VENV) (a few minutes)"; \
			rm -f $(VENV)/installed-*; \
			exec "$$python" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "No Python 3.10 to 3.12 with venv and ensurepip among: $(PYTHON);" \
		"install one (Debian, Ubuntu: apt install python3-venv) or name one with PYTHON=/path/to/python." >&2; \
	exit 2
	$(PY) -m pip install --disable-pip-version-check $(addprefix --extra-index-url ,$(PADDLE_INDEX)) \
		"$(PACKAGE)" -r requirements/$(BUILD).txt -r requirements/dev.txt
	@touch $@

demo: setup
	$(PY) train.py
	$(PY) test.py --pretrained_model "$$(ls -d sagan_models/acgan-digits-* | sort -t - -k 3 -n | tail -n 1)"

test: setup
	$(PY) -m pytest

test-all: setup
	$(PY) -m pytest -m ""

lint: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: setup
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean:
	rm -rf .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +
