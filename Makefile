# `make book` and `make test` do everything on a machine that has Python 3.11 and nothing else; `make` lists the rest.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
JOBS ?= 2
LIMIT ?= 3600
BIN := $(CURDIR)/.venv/bin
PYTEST := $(BIN)/python -m pytest

# What every phase runs under: the small size, one thread a worker, no model hub.
export ANATOLAB_SIZE ?= tiny
export PYTHONUTF8 ?= 1
export OMP_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export JUPYTER_PREFER_ENV_PATH ?= 1
export ANATOLAB_JOBS = $(JOBS)
export PATH := $(BIN):$(PATH)
ifdef ANATOLAB_DATA
export ANATOLAB_DATA := $(abspath $(ANATOLAB_DATA))
endif
export ANATOLAB_REQUIRE_BROWSER

.PHONY: help env book test lint unit doctest html executed pages notebooks site pdf zip strip lock records campaign weights bench gpu clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## +/\1\t/' | while IFS=$$'\t' read -r t d; do printf 'make %-10s %s\n' "$$t" "$$d"; done

env:  ## make .venv equal to requirements.lock (nothing to do when it is)
	@bash tools/env.sh $(PYTHON)

book: html  ## run every notebook at size tiny, build the book, print the page to open
	@echo "The book is built: open _build/html/index.html"

test: env  ## everything: lint, unit tests, doctests, book, notebook tests, checks of the built site
	@MAKE="$(MAKE)" bash tools/phases.sh lint+doctest unit executed pages+notebooks site

lint: env  ## ruff, ruff format, mypy, the rules for pages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tools/lint_pages.py
	@$(BIN)/python tools/lint_reading.py

unit: env  ## unit tests
	@$(PYTEST) -q -p no:nbval -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not site" --durations 10

doctest: env  ## the examples in the docstrings
	@$(PYTEST) -q -p no:nbval -n $(JOBS) --doctest-modules --durations 10 anatolab

html: executed
	@$(MAKE) pages

executed: env # every notebook of the book, into the cache of outputs
	@$(BIN)/python tools/book_cache.py --jobs $(JOBS)

pages: env # the site, from the cache of outputs; one process, beside which `make test` runs the notebook tests
	@rm -rf _build/html _build/.doctrees # pages of chapters that are gone
	@$(BIN)/jupyter-book build . --all -W -n --keep-going

# Every stored output is held against that of the book's build, by nbval's rules. nbval then runs the theory notebooks and
# a contract notebook of each part once more, as a reader does: without the build, with figures for a live notebook.
notebooks: env  ## notebook tests: stored outputs against fresh ones (needs `make executed` before)
	@$(BIN)/python tools/notebooks.py check
	@$(BIN)/python tools/notebooks.py compare
	@for mode in lax strict; do \
	  files=$$($(BIN)/python tools/notebooks.py list $$mode); \
	  if [ -z "$$files" ]; then echo "no notebook to compare in $$mode mode"; continue; fi; \
	  flag=$$([ $$mode = lax ] && echo --nbval-lax || echo --nbval); \
	  $(PYTEST) -q $$flag $$files --nbval-current-env --nbval-cell-timeout 120 \
	    --nbval-sanitize-with tests/nbval.cfg -n $(JOBS) --dist loadscope --durations 10; \
	done

site: env  ## checks of the built site (needs `make book` before, and Chromium for most of them)
	@$(PYTEST) -q -p no:nbval -n $$(($(JOBS) + 1)) --dist worksteal --durations 10 -m site

pdf: html  ## all chapters as one PDF, printed by Chromium, linked on the front page
	@$(BIN)/python tools/take_home.py pdf

zip: html  ## the site as a ZIP that opens from disk, linked on the front page
	@$(BIN)/python tools/take_home.py zip

strip: env  ## remove outputs that no test compares from the notebooks
	@$(BIN)/python tools/notebooks.py strip

lock: env  ## resolve requirements.lock, with hashes, from the ranges in pyproject.toml (keeps pins that still fit)
	@uv=$$(command -v uv || echo .venv-uv/bin/uv); \
	env -u UV_FIND_LINKS $$uv pip compile --quiet pyproject.toml --extra book --extra test --extra dev \
	  --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11 \
	  --output-file requirements.lock
	@git --no-pager diff --stat -- requirements.lock

# The runs behind the book's numbers work in a checkout of their own, so that editing here cannot change them midway.
records: env  ## make missing and stale records at HEAD, in a checkout of their own (nice 19, one thread)
	@if [ -e .cache/records/.git ]; then git -C .cache/records checkout --quiet --detach $$(git rev-parse HEAD); \
	  else git worktree prune && git worktree add --quiet --force --detach .cache/records HEAD; fi
	@cd .cache/records && env -u ANATOLAB_SIZE ANATOLAB_RECORDS="$${ANATOLAB_RECORDS:-$(CURDIR)/book/records}" \
	  PYTHONPATH="$(CURDIR)/.cache/records" nice -n 19 $(BIN)/python studies/trainings.py records $(ARGS)

campaign: env  ## go on with the fault campaign behind the page on reliability (nice 10; ARGS="--limit 600")
	@PYTHONPATH="$(CURDIR)" nice -n 10 $(BIN)/python -W ignore studies/campaign.py $(ARGS)

weights: env  ## train the small CLIP models and the checkpoints on hearts of the book anew (a quarter of an hour on a core)
	@$(BIN)/python studies/weights.py scenes-vit
	@$(BIN)/python studies/weights.py scenes-rn
	@$(BIN)/python studies/checkpoints.py

bench: env  ## every performance contract with peer, ratio and target: CPU time of one thread (half an hour)
	@OMP_WAIT_POLICY=PASSIVE PYTHONPATH="$(CURDIR)" $(BIN)/python benchmarks/targets.py $(ARGS)

gpu:  ## GPU tests, benchmarks and missing records within LIMIT seconds, with the Python at hand (PYTHON=...)
	@env -u ANATOLAB_SIZE -u OMP_NUM_THREADS -u NUMBA_NUM_THREADS -u OPENBLAS_NUM_THREADS PYTHONPATH="$(CURDIR)" $(PYTHON) studies/trainings.py gpu --limit $(LIMIT) $(ARGS)

clean:  ## remove what was built (not the environment, not records or the runs behind them)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
