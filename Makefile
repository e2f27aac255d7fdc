## make demo       train on handwritten digits, test the generator and draw samples (2.5 minutes on 2 cores)
## make test       run the test suite; PADDLE=2.6.2 runs it with that version, in a separate environment
## make test-all   run the test suite with the slow tests; installs a browser, the converter to ONNX, PyTorch, a notebook kernel
## make check-gpu  check this machine's GPUs in under 10 minutes; writes a page to paste, check-gpu.md
## make lint       check the style; `make format` repairs most of it
## make setup      install into .venv (the other commands do this too); GPU=1: a GPU build, GPU=0: the CPU build,
##                 default: the build for this machine's GPUs, if it has any; PYTHON=…: the Python to use
##                 (3.10 to 3.13; with Paddle 2, 3.10 to 3.12)
## make export-env install the converter to ONNX, for export.py, into .venv-export
## make test-demo  test demo.py in headless Chromium, with an environment of its own, .venv-demo
## make clean      remove caches, but keep runs and environments

# To use a mirror of PyPI, set pip's own variable: PIP_INDEX_URL=https://pypi.tuna.tsinghua.edu.cn/simple make setup
# PyPI has GPU builds up to Paddle 2.6.2. Later ones come from Paddle's own index. requirements/gpu_build.sh chooses one
# for the GPUs of this machine. PADDLE_INDEX or PADDLE chooses another one:
#   make setup PADDLE_INDEX=https://www.paddlepaddle.org.cn/packages/stable/cu126/
INDEXES := https://www.paddlepaddle.org.cn/packages/stable/
ifeq ($(PADDLE_INDEX)$(filter 2.%,$(PADDLE))$(filter 0,$(GPU)),)
CHOICE := $(shell sh requirements/gpu_build.sh)
# Without nvidia-smi, GPU=1 installs the build that serves most GPUs, for example while a container is built.
CHOICE := $(or $(CHOICE),$(if $(filter 1,$(GPU)),cu126))
REFUSAL := $(if $(word 2,$(CHOICE)),$(CHOICE))
GPU := $(if $(CHOICE),1,0)
PADDLE_INDEX := $(if $(REFUSAL)$(filter pypi,$(CHOICE)),,$(CHOICE:%=$(INDEXES)%/))
endif
GPU ?= 1
DEFAULT_PADDLE := $(if $(filter pypi,$(CHOICE)),2.6.2,3.3.1)
PADDLE ?= $(DEFAULT_PADDLE)

# Paddle 2 is always installed as the GPU build, because its users have that one. It also runs without a GPU.
BUILD := $(if $(filter 2.%,$(PADDLE)),paddle2,$(if $(filter 1,$(GPU)),gpu,cpu))
PACKAGE := $(if $(filter cpu,$(BUILD)),paddlepaddle,paddlepaddle-gpu)==$(PADDLE)
VENV := .venv$(if $(filter-out $(DEFAULT_PADDLE),$(PADDLE)),-$(PADDLE))
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed-$(subst ==,-,$(PACKAGE))$(addprefix -,$(notdir $(PADDLE_INDEX:/=)))

# The Python versions to try, in this order. Paddle 2 has no wheels for 3.13, and Paddle 3.3.1 has none for 3.14.
VERSIONS := 3.12 $(if $(filter paddle2,$(BUILD)),,3.13) 3.11 3.10
RANGE := 3.10 to $(if $(filter paddle2,$(BUILD)),3.12,3.13)
PYTHON ?= $(VERSIONS:%=python%) python3 python
# If a machine has a GPU and only Python 3.13, the default is Paddle 2, which does not run with 3.13.
ifeq ($(BUILD) $(PADDLE),paddle2 $(DEFAULT_PADDLE))
OR_PADDLE_3 := ; Paddle 3 runs with 3.13 too: GPU=0 installs its CPU build, PADDLE_INDEX (see the Makefile) its GPU build
endif

.PHONY: help setup export-env torch-env demo test test-all test-demo check-gpu lint format clean

help:
	@sed -n 's/^## //p' Makefile

setup: $(STAMP)

# Run each candidate, because a name on PATH may be a broken shim.
# Always create a new environment, and write the stamp last. So an interrupted or outdated environment is replaced.
$(STAMP): requirements/base.txt requirements/$(BUILD).txt requirements/dev.txt
	@$(if $(REFUSAL),echo '$(subst ',,$(REFUSAL)).' >&2; exit 2)
	@found=; incomplete=; \
	for python in $(PYTHON); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		found="$$found$${found:+, }$$python is $$version"; \
		case " $(VERSIONS) " in *" $$version "*) ;; *) continue ;; esac; \
		if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
			found="$$found without venv or ensurepip"; \
			incomplete="$${incomplete:-$$version}"; \
			continue; \
		fi; \
		echo "Installing $(PACKAGE) and the rest into $(VENV) (a few minutes)"; \
		rm -f $(VENV)/installed-*; \
		exec "$$python" -m venv --clear $(VENV); \
	done; \
	if [ -n "$$incomplete" ]; then \
		remedy="install these (Debian, Ubuntu: apt install python$$incomplete-venv), or run"; \
	else \
		remedy="run \`uv venv --python 3.12 .venv-python\` or"; \
	fi; \
	echo "Paddle $(PADDLE) needs Python $(RANGE); found: $${found:-none of $(PYTHON) runs}; $$remedy" \
		"\`conda create -p .venv-python python=3.12\` and add PYTHON=.venv-python/bin/python to this command," \
		"or name another Python with PYTHON=/path/to/python$(OR_PADDLE_3)." >&2; \
	exit 2
	@# pip's own output is long. Show one line per package. The stamp says whether pip has succeeded.
	@{ $(PY) -u -m pip install --disable-pip-version-check --progress-bar off \
		$(addprefix --extra-index-url ,$(PADDLE_INDEX)) \
		"$(PACKAGE)" -r requirements/$(BUILD).txt -r requirements/dev.txt && touch $@; } | sed -n 's/^\(Collecting [^ ]*\).*/\1/p'
	@test -e $@

# The converter to ONNX needs an environment of its own: it pins an onnx that has no wheels for Python 3.13.
export-env: .venv-export/installed

.venv-export/installed: requirements/export.txt
	@for python in $(PY) python3.12 python3.11 python3.10 $(PYTHON); do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11), (3, 12)))' \
			2>/dev/null || continue; \
		exec "$$python" -m venv --clear .venv-export; \
	done; \
	echo "The converter to ONNX needs Python 3.10 to 3.12 with venv: name one with PYTHON=/path/to/python." >&2; \
	exit 2
	.venv-export/bin/python -m pip install --disable-pip-version-check -r requirements/export.txt
	@touch $@

# The slow tests compare exported weights with PyTorch's networks.
torch-env: .venv-torch/installed

.venv-torch/installed: $(STAMP) requirements/torch.txt
	$(PY) -m venv --clear .venv-torch
	.venv-torch/bin/python -m pip install --disable-pip-version-check -r requirements/torch.txt
	@touch $@

demo: setup
	$(PY) train.py
	$(PY) test.py --pretrained_model "$$(ls -d sagan_models/acgan-digits-* | sort -t - -k 3 -n | tail -n 1)"

# Two processes share the test files, because one alone often waits for the commands that it starts.
test: setup
	$(PY) -m pytest -n 2 --dist loadfile

# The notebooks run in the environment of the project.
$(VENV)/installed-notebook: $(STAMP) requirements/notebook.txt
	$(PY) -m pip install --disable-pip-version-check -r requirements/notebook.txt
	@touch $@

test-all: setup export-env torch-env $(VENV)/installed-notebook test-demo
	$(PY) -m pytest -m "" -n 2 --dist loadfile

# This environment has Gradio and Playwright. It finds the project's packages in $(VENV).
.venv-demo/installed: requirements/demo.txt requirements/browser.txt $(STAMP)
	$(PY) -m venv --clear .venv-demo
	.venv-demo/bin/python -m pip install --disable-pip-version-check -r requirements/demo.txt -r requirements/browser.txt
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-demo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	command -v chromium || command -v chromium-browser || .venv-demo/bin/playwright install chromium
	@touch $@

test-demo: .venv-demo/installed
	.venv-demo/bin/python -m pytest -m "" tests/pages/test_demo_page.py

check-gpu: setup
	$(PY) benchmarks/check_gpu.py

lint: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: setup
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean:
	rm -rf .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +
