# make help lists the targets. Every target does the set-up it needs, from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DEMO := demo
MINUTES := 20
DATA := cifar10

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix bench dist docs gpu

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-7s %s\n", $$1, $$2 }'

setup: $(INSTALLED) ## a virtual environment in .venv with the pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED) ## one page of what all this does: a photo as codes, samples, files, and a training run of minutes
	rm -rf $(DEMO)
	$(BIN)/depthq demo --out $(DEMO)

test: $(INSTALLED) ## the whole test suite, on as many cores as there are, up to 8
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal

check: $(INSTALLED) ## formatting, lint and types; never edits
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check
	$(BIN)/basedpyright
	$(BIN)/basedpyright --project tests/typing

fix: $(INSTALLED) ## format and mend what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) ## time ours, the peers and the limit; prints tables, draws docs/img/bench-*.png
	@for benchmark in benchmarks/*.py; do \
		case $$benchmark in */measure.py|*/image_files.py|*/gpu.py) ;; *) echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1 ;; esac; done

docs: $(INSTALLED) ## the site, in site/; fails on a broken link or a docstring that cannot be read
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

gpu: $(INSTALLED) ## on a machine with CUDA: kernel tests, benchmarks, MINUTES=20 of the paper's preset on DATA=cifar10; goes on
	$(BIN)/python benchmarks/gpu.py --minutes $(MINUTES) --data $(DATA)

dist: $(INSTALLED) ## sdist and wheel in dist/, and the wheel tried in an environment of its own
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python tests/try_wheel.py dist/*.whl
