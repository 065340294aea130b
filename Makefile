# Development commands. `make` lists them; their output is in build/, which git ignores.

PYTHON ?= python3
ARGS ?=
bin := build/venv/airflow/bin
# Parallel because most tests wait for Airflow and Slurm.
side_by_side := --numprocesses 4 --dist loadfile
environments := exec "$(PYTHON)" .dev/environments.py
pytest := $(bin)/python -m pytest $(side_by_side)

# Slurm version for `make test-slurm`: empty for the one on PATH, or a version listed by .dev/slurm_versions.py.
SLURM ?=
# Slurm's ProctrackType plugin: linuxproc (default) or cgroup.
PROCTRACK ?=
TESTS ?= tests/slurm_cluster tests/slurm $(wildcard $(addprefix tests/,operators/test_slurm*.py decorators/test_slurm.py \
    triggers/test_slurm*.py cli/test_on_slurm*.py airflow/test_slurm*.py))

# Isolates the commands from the shell's Python and Airflow settings.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV $(filter AIRFLOW% _AIRFLOW%,$(.VARIABLES))

.PHONY: help demo docs test quick test-slurm bench drill walk up down check format constraints clean checkout python

help: checkout ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: python ## create the environments and run the example DAG with `airflow dags test`, on SQLite
	@$(environments) airflow digits
	@$(bin)/python .dev/demo.py

docs: python ## build the documentation into build/site; a warning is an error
	@$(environments) docs
	NO_MKDOCS_2_WARNING=1 build/venv/docs/bin/python -m mkdocs build --strict
	@echo "docs: build/site/index.html; for the search box: $(PYTHON) -m http.server --bind 127.0.0.1 --directory build/site"

test: check ## create the environments, check the code and run all tests (ARGS="-k name" goes to pytest)
	@$(environments) digits docs
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(pytest) $(ARGS)

quick: python ## run the tests that need neither Airflow nor Slurm, containers or a browser, on two cores
	@$(environments) airflow-test
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(bin)/python -m pytest --numprocesses 3 --dist worksteal \
	    -m "not airflow and not slurm and not containers and not browser and not slow" $(ARGS)

test-slurm: python ## run the Slurm tests (SLURM=24.11 for that version, as root; PROCTRACK=cgroup; TESTS="tests/slurm_cluster")
	@$(environments) airflow-test
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(if $(PROCTRACK),SEWER_TEST_PROCTRACK=$(PROCTRACK)) \
	    $(if $(SLURM),$(bin)/python .dev/slurm_versions.py $(SLURM)) $(pytest) $(TESTS) $(ARGS)

bench: python ## compare costs with other packages and update the table of docs/explanation/performance.md (ARGS="parse" for one part)
	@$(environments) airflow-test
	@$(environments) peers || echo 'bench: continuing without the environments that could not be created' >&2
	@cd .dev && exec ../$(bin)/python -m bench $(ARGS)

drill: python ## kill and stop processes of Airflow and Slurm for 10 minutes, and count broken guarantees (ARGS="--tasks 12")
	@$(environments) airflow-test
	@cd .dev && exec ../$(bin)/python -m drill $(ARGS)

walk: python ## print the functions that a parameter, a job id and a product path pass in one Slurm task, for short ways in the code
	@$(environments) airflow-test
	@exec $(bin)/python .dev/walk.py

up: python ## start docker-compose.yaml: Airflow and a Slurm cluster in containers
	@exec "$(PYTHON)" .dev/docker_compose.py up

down: python ## remove these containers; their volumes remain
	@exec "$(PYTHON)" .dev/docker_compose.py down

check: python ## check style, formatting, types and import layers
	@$(environments) airflow-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

format: python ## format the code and apply ruff's fixes
	@$(environments) airflow-test
	$(bin)/ruff check --fix-only .
	$(bin)/ruff format .

constraints: python ## update .dev/constraints.txt to the newest versions
	@$(environments) constraints

clean: checkout ## remove build/: environments, Airflow's home, output of demo and tests
	rm -rf build

checkout:
	@grep -qs '^name = "airflow-provider-sewer"' pyproject.toml || { echo "not an airflow-provider-sewer checkout: $$PWD" >&2; exit 1; }

python: checkout
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || { echo 'PYTHON must be Python 3.11 or later, got $(PYTHON). On Debian: apt-get install python3 python3-venv' >&2; exit 1; }
