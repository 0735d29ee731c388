# Every target installs what it needs into $(VENV) first. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
FACES ?=
SCRATCH ?=
VARIANTS ?=

PY := $(VENV)/bin/python
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: help demo tables test lint format types docs bench doctor installs clean

help:
	@echo "make demo                         restore a portrait, then fine-tune the default model on drawn faces"
	@echo "make demo FACES=FOLDER_OR_ZIP     the same with your own faces"
	@echo "make demo SCRATCH=1               train both stages from scratch: a small prior, then a small GPEN"
	@echo "make demo VARIANTS=1              train the four networks of the paper's Table 1 from scratch"
	@echo "make tables [FACES=...]           Tables 1, 2 and 3 for the networks of make demo VARIANTS=1"
	@echo "make test [ARGS='-k hook']        run the tests"
	@echo "make lint, make format            check or format the code"
	@echo "make types                        check the type hints of the public modules with mypy"
	@echo "make docs                         write docs/OPTIONS.md and docs/API.md from the docstrings"
	@echo "make bench [ARGS='--threads 8']   measure the speed and write benchmarks/RESULTS.md; with a GPU, on both"
	@echo "make doctor                       check the installation"
	@echo "make installs [ARGS=...]          install in a fresh environment of each Python here, and restore a face in each"
	@echo "make clean                        delete the environment and caches; keep trainings and results"

demo: $(READY)
	$(PY) -m gpen_plugin.demo $(if $(FACES),--faces "$(FACES)") $(if $(SCRATCH),--scratch) $(if $(VARIANTS),--variants)

tables: $(READY)
	@test -f experiments/gpen_demo_noise_add/models/net_g_latest.pth \
		|| { echo "First run: make demo VARIANTS=1"; exit 1; }
	$(PY) -m gpen_plugin.evaluate -opt options/evaluate/demo_table*.yml \
		$(if $(FACES),--force_yml protocol:dataroot_gt="$(FACES)")

# A file stays on one process: its tests share what is slow to make. tests/conftest.py puts the slow files first.
# Without bytecode each of the many processes would compile this package anew, and each run all tests.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(READY)
	$(PY) -m pip install -q -c constraints.txt mypy
	$(PY) -m mypy

docs: $(READY)
	$(PY) docs/generate.py

bench: $(READY)
	$(PY) benchmarks/results.py $(ARGS)

doctor: $(READY)
	$(PY) -m gpen_plugin.doctor

installs:
	$(PYTHON) packaging/try_install.py $(ARGS)

$(READY): constraints.txt setup.py pyproject.toml packaging/backend.py packaging/environment.py
	$(PYTHON) packaging/environment.py "$(VENV)"
	@touch "$@"

# Trainings and results are kept.
clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	@if ls "$(VENV)"/.ready-* >/dev/null 2>&1; then rm -rf "$(VENV)"; fi
