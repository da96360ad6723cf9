# `make demo` and `make test` install what they need; see setup.sh.
.PHONY: demo test lint bench bench-download bench-skill clean setup browser

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
	rm -rf .venv build dist demo-output benchmarks/results \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find deepbedmap tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
