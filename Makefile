# `make demo` and `make test` set up all that they need, once. With another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
FACES ?=
SCRATCH ?=
VARIANTS ?=

PY := $(VENV)/bin/python
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: help demo tables test lint format bench doctor clean

help:
	@echo "make demo [FACES=folder or zip]  restore a portrait, and train the model that comes along on for faces"
	@echo "make demo SCRATCH=1              both stages from nothing: a small prior, then a small GPEN"
	@echo "make demo VARIANTS=1             the four networks of the paper's Table 1 so, side by side"
	@echo "make tables [FACES=...]          Tables 1, 2 and 3 of the networks that make demo VARIANTS=1 has trained"
	@echo "make test [ARGS='-k hook']       run the tests"
	@echo "make bench [ARGS='--device cuda'] measure speed, and write benchmarks/RESULTS.md"
	@echo "make lint | format | doctor | clean"

demo: $(READY)
	$(PY) -m gpen_plugin.demo $(if $(FACES),--faces "$(FACES)") $(if $(SCRATCH),--scratch) $(if $(VARIANTS),--variants)

tables: $(READY)
	@test -f experiments/gpen_demo_noise_add/models/net_g_latest.pth \
		|| { echo "First run: make demo VARIANTS=1"; exit 1; }
	$(PY) -m gpen_plugin.evaluate -opt options/evaluate/demo_table*.yml \
		$(if $(FACES),--force_yml protocol:dataroot_gt="$(FACES)")

# A file stays on one process: its tests share what is slow to make.
test: $(READY)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY)
	$(PY) benchmarks/results.py $(ARGS)

doctor: $(READY)
	$(PY) -m gpen_plugin.doctor

$(READY): constraints.txt setup.py pyproject.toml packaging/backend.py packaging/environment.py
	$(PYTHON) packaging/environment.py "$(VENV)"
	@touch "$@"

# What make wrote; trainings and their results are yours.
clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	@if ls "$(VENV)"/.ready-* >/dev/null 2>&1; then rm -rf "$(VENV)"; fi
