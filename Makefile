# `make demo` and `make test` install what they need; see setup.sh.
.PHONY: demo test test-oldest test-newest lint bench bench-download bench-skill clean setup browser

# Idle threads sleep: spinning ones slow a busy machine down several times.
export OMP_WAIT_POLICY = passive
# glibc keeps freed memory instead of handing it back: a training step asks for the same again.
export MALLOC_MMAP_THRESHOLD_ = 1073741824
export MALLOC_TRIM_THRESHOLD_ = 1073741824

SEED ?= 0
OUT ?= demo-output
SIZE ?= minute

demo: setup
	.venv/bin/deepbedmap demo --out "$(OUT)" --seed $(SEED)

# A process a core, each file of tests in one of them.
test: browser lint
	.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# The lowest versions that pyproject.toml allows, and the newest that there are.
TRIED = tests/schemas tests/registry tests/catalog tests/rasters tests/points tests/grids tests/tiles \
	tests/products tests/model tests/cli/test_cli.py
test-oldest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-oldest test-newest:
	python3 -m venv --clear .venv-$(RESOLUTION)
	.venv-$(RESOLUTION)/bin/python -m pip install --quiet uv
	.venv-$(RESOLUTION)/bin/uv pip install --python .venv-$(RESOLUTION) --resolution $(RESOLUTION) \
		--index-strategy unsafe-best-match --editable ".[all]"
	.venv-$(RESOLUTION)/bin/uv pip install --python .venv-$(RESOLUTION) \
		pytest hypothesis hatchling rio-cogeo compliance-checker
	.venv-$(RESOLUTION)/bin/python -m pytest -q $(TRIED)

# Each stage beside the plain way of working; SIZE=hour for the full cases.
bench: setup
	.venv/bin/python benchmarks/stages.py --size $(SIZE)

bench-download: setup
	.venv/bin/python benchmarks/download.py

bench-skill: setup
	.venv/bin/python benchmarks/skill.py

setup:
	@sh setup.sh

# Tests open pages in it; nothing else needs it.
browser:
	@sh setup.sh tests

clean:
	rm -rf .venv .venv-lowest-direct .venv-highest build dist demo-output benchmarks/results \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find deepbedmap tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
