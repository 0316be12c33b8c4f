# `make` lists the targets. Each of them builds .venv first when it is missing or out of date.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
MIRROR ?=
RECIPE ?= simplenet
# More options for `chainrule train`, e.g. make train ARGS="--epochs 30 --seed 1"
ARGS   ?=

.DEFAULT_GOAL := help
# `make -j download train` must still train after the download.
.NOTPARALLEL:
.PHONY: help setup download train compare test lint check clean bench time-to-accuracy bench-idx fuzz-idx docs gallery

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## build .venv from constraints.txt

# PIP_CONSTRAINT holds for the build environment as well, so that nothing is installed unpinned.
$(READY): pyproject.toml constraints.txt
	@rm -f $@
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "chainrule needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what constraints.txt names into $(VENV) (PyTorch is large; a few minutes the first time) ..."
	@PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

download: $(READY)  ## fetch MNIST, verified, into data/ (MIRROR=folder-or-URL to take it from elsewhere)
	@$(BIN)/chainrule download mnist $(if $(MIRROR),--mirror '$(MIRROR)') --or-embedded

train: $(READY)  ## train by hand (NumPy) and with PyTorch, side by side, and compare (RECIPE=ann, ARGS=...)
	@$(BIN)/chainrule train $(RECIPE) --engine both $(ARGS)

# What `make compare` compares; chainrule compare has more options.
COMPARED ?= simplenet cnn-same

compare: $(READY)  ## prove both engines equal, tensor by tensor (COMPARED="simplenet ann", ARGS="--dtype float32")
	@status=0; for recipe in $(COMPARED); do $(BIN)/chainrule compare $$recipe $(ARGS) || status=1; done; exit $$status

.PHONY: lessons
lessons: $(READY)  ## export the lessons to build/lessons: HTML that needs no network, and Jupyter notebooks
	@$(BIN)/python lessons/export.py

test: $(READY)  ## run the tests, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(READY)  ## ruff, mypy and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## everything that must pass before a change lands: lint and test

bench: $(READY)  ## time both engines beside their peers and the floor, into build/bench (ARGS="--batches 64")
	@$(BIN)/python benchmarks/training_speed.py $(ARGS)
	@$(BIN)/python benchmarks/training_speed.py --scaling
	@$(BIN)/python benchmarks/startup.py

time-to-accuracy: $(READY)  ## seconds of training to 97, 98 and 98.5 % on MNIST (ARGS="--targets 98 --workers 1 2")
	@$(BIN)/python benchmarks/time_to_accuracy.py $(ARGS)

docs: gallery  ## build the documentation into build/docs (no network; warnings are errors)
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

gallery: $(READY)  ## make the pictures of the gallery of mistakes, where what they are made of has changed
	@$(BIN)/python docs/make_gallery.py

# What `make bench-idx` compares with. python-mnist and mnist install a package of the same name.
PEERS := build/idx-peers

bench-idx: $(READY)  ## time and memory of idx beside NumPy, zlib and the readers of PyPI
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(PEERS) idx2numpy==1.2.3 six==1.17.0 mnist==0.2.2 mnists==0.4.1 || true
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(PEERS)/python-mnist python-mnist==0.7 || true
	@$(BIN)/python benchmarks/idx_speed.py
	@$(BIN)/python benchmarks/idx_readers.py

# atheris has no wheels for every Python, so it has an environment of its own.
FUZZ_VENV := build/fuzz-venv
RUNS      ?= 1000000

fuzz-idx:  ## feed idx a million inputs, guided by coverage (RUNS=...)
	@test -x $(FUZZ_VENV)/bin/python || $(PYTHON) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --constraint constraints.txt atheris==3.0.0 numpy isal
	@mkdir -p build/fuzz-idx
	@PYTHONPATH=. $(FUZZ_VENV)/bin/python tests/fuzz/fuzz_idx.py -runs=$(RUNS) -artifact_prefix=build/ build/fuzz-idx

clean:  ## remove .venv and what the tools leave (not data/ and not runs/)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
