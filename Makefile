# `make repro` runs the pipeline, `make test` the tests; both install what they need first.

PYTHON ?= python3
BIN := .venv/bin
# DVC reports usage and looks for updates unless told not to; so does albumentations.
export DVC_NO_ANALYTICS := true
export NO_ALBUMENTATIONS_UPDATE := 1

# uv installs in a tenth of pip's time, but does not read pip's settings, and a network may have a mirror only. Passed on are
# index-url, trusted-host and cert, from the environment before pip's files; extra-index-url is not, since uv would treat it
# in another way.
pip_setting = $(shell all="$$($(BIN)/pip config list 2>/dev/null)"; for from in :env: install global; do \
	printf '%s\n' "$$all" | sed -n "s/^$$from\.$(1)='\(.*\)'$$/\1/p"; done | sed 's/^\\n//; s/\\n/ /g' | head -n 1)
uv_index = $(or $(UV_DEFAULT_INDEX),$(UV_INDEX_URL),$(call pip_setting,index-url))
uv_hosts = $(or $(UV_INSECURE_HOST),$(call pip_setting,trusted-host))
uv_cert = $(or $(SSL_CERT_FILE),$(call pip_setting,cert))
UV = $(if $(uv_index),UV_DEFAULT_INDEX='$(uv_index)') $(if $(uv_hosts),UV_INSECURE_HOST='$(uv_hosts)') \
	$(if $(uv_cert),SSL_CERT_FILE='$(uv_cert)') $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python

# With several GPUs, make repro first trains one job on each of them at a time. GPUs that are not NVIDIA's: GPUS=8. Of
# those of a machine that is shared, CUDA_VISIBLE_DEVICES may allow some; what follows a negative number does not count.
GPUS ?= $(shell all=$$(nvidia-smi -L 2>/dev/null | grep -c '^GPU'); \
	if [ "$$all" -gt 0 ] && [ -n "$${CUDA_VISIBLE_DEVICES+set}" ]; then \
	printf '%s\n' "$$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | sed '/^ *-/,$$d' | grep -c '[^ ]'; else echo $$all; fi)

.PHONY: repro weights train-parallel search test lint check

repro: .venv/run.stamp $(if $(filter-out 0 1,$(GPUS)),train-parallel)
	$(BIN)/python -m pipeline params --check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc --wait-for-lock repro
	$(BIN)/python -m pipeline summary

# Train the weights in weights/ again, from nothing: one to two hours on two cores, and 12 GB of disk meanwhile.
PROFILE ?= weights/cells.yaml
weights: .venv/run.stamp
	$(BIN)/python -m pipeline train-weights $(PROFILE)

# Stale train and tta jobs in parallel on Ray: one per GPU, or one per CPUS cores if there is none.
train-parallel: .venv/cluster.stamp
	$(BIN)/python -m pipeline params --check
	PATH="$(CURDIR)/$(BIN):$$PATH" RAY_USAGE_STATS_ENABLED=0 $(BIN)/python -m pipeline train-parallel $(if $(CPUS),--cpus $(CPUS))

# Search for a model's parameters over the space in params.yaml: TRIALS in all, one per GPU at a time or JOBS side by side.
TRIALS ?= 40
search: .venv/search.stamp
	$(BIN)/python -m pipeline params --check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc --wait-for-lock repro folds
	$(BIN)/python -m pipeline search --trials $(TRIALS) $(if $(JOBS),--jobs $(JOBS))

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11: name a newer one, as in 'make repro PYTHON=python3.12'"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.8

.venv/run.stamp: requirements.txt requirements.lock | .venv/bin/uv
	@echo "installing $<"
	@$(UV) -r requirements.txt -c requirements.lock
	@touch $@

.venv/cluster.stamp: requirements.txt requirements-cluster.txt requirements.lock | .venv/bin/uv
	@echo "installing $<"
	@$(UV) -r requirements-cluster.txt -c requirements.lock
	@touch $@

.venv/search.stamp: requirements.txt requirements-cluster.txt requirements-search.txt requirements.lock | .venv/bin/uv
	@echo "installing $<"
	@$(UV) -r requirements-search.txt -c requirements.lock
	@touch $@

.venv/dev.stamp: requirements.txt requirements-cluster.txt requirements-search.txt requirements-fetch.txt \
		requirements-embeddings.txt requirements-export.txt requirements-app.txt requirements-dev.txt \
		requirements.lock | .venv/bin/uv
	@echo "installing $<"
	@$(UV) -r requirements-dev.txt -c requirements.lock
	@touch $@
