# What can be done in this checkout. `make` lists it; all it makes lies in build/, which git ignores.

PYTHON ?= python3
ARGS ?=
bin := build/venv/airflow/bin
# Most of the tests' time is spent waiting for Airflow and for Slurm.
side_by_side := --numprocesses 4 --dist loadfile
environments := exec "$(PYTHON)" .dev/environments.py
pytest := $(bin)/python -m pytest $(side_by_side)

# The Slurm that `make test-slurm` runs: the one on PATH, or a version that .dev/slurm_versions.py lists.
SLURM ?=
# Slurm's plugin that finds the processes of a job: linuxproc, which is the default, or cgroup.
PROCTRACK ?=
TESTS ?= tests/slurm_cluster tests/slurm $(wildcard $(addprefix tests/,operators/test_slurm*.py decorators/test_slurm.py \
    triggers/test_slurm.py cli/test_on_slurm*.py airflow/test_slurm*.py))

# Neither the shell's Python environment nor an Airflow that the shell is set up for reaches what runs here.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV $(filter AIRFLOW% _AIRFLOW%,$(.VARIABLES))

.PHONY: help demo test quick test-slurm bench drill up down check format constraints clean checkout python

help: checkout ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: python ## make the environments and run the example DAG with `airflow dags test`, on SQLite
	@$(environments) airflow digits
	@$(bin)/python .dev/demo.py

test: check ## make the environments, check the code and run every test (ARGS="-k name" is for pytest)
	@$(environments) digits
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(pytest) $(ARGS)

quick: python ## run the tests that need neither Airflow nor Slurm, containers or a browser, on two cores
	@$(environments) airflow-test
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(bin)/python -m pytest --numprocesses 2 --dist worksteal \
	    -m "not airflow and not slurm and not containers and not browser and not slow" $(ARGS)

test-slurm: python ## run the tests of Slurm (SLURM=24.11 for that version, as root; PROCTRACK=cgroup; TESTS="tests/slurm_cluster")
	@$(environments) airflow-test
	@mkdir -p build/tmp
	PYTEST_DEBUG_TEMPROOT="$(CURDIR)/build/tmp" $(if $(PROCTRACK),SEWER_TEST_PROCTRACK=$(PROCTRACK)) \
	    $(if $(SLURM),$(bin)/python .dev/slurm_versions.py $(SLURM)) $(pytest) $(TESTS) $(ARGS)

bench: python ## measure what this costs beside what else there is, and write the README's table (ARGS="parse" for a part)
	@$(environments) airflow-test
	@$(environments) peers || echo 'bench: going on without what could not be made' >&2
	@cd .dev && exec ../$(bin)/python -m bench $(ARGS)

drill: python ## kill and stop processes of Airflow and Slurm for 10 minutes, and count broken promises (ARGS="--tasks 12")
	@$(environments) airflow-test
	@cd .dev && exec ../$(bin)/python -m drill $(ARGS)

up: python ## bring up docker-compose.yaml: Airflow and a Slurm cluster in containers
	@exec "$(PYTHON)" .dev/containers.py up

down: python ## take those containers down again; their volumes stay
	@exec "$(PYTHON)" .dev/containers.py down

check: python ## check style, formatting, types and the direction of imports
	@$(environments) airflow-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

format: python ## format the code, and put right what ruff can
	@$(environments) airflow-test
	$(bin)/ruff check --fix-only .
	$(bin)/ruff format .

constraints: python ## look up the newest versions anew, for .dev/constraints.txt
	@$(environments) constraints

clean: checkout ## remove build/: environments, Airflow's home, what demo and tests have made
	rm -rf build

checkout:
	@grep -qs '^name = "airflow-provider-sewer"' pyproject.toml || { echo "This is not the checkout: $$PWD" >&2; exit 1; }

python: checkout
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || { echo 'Python 3.11 or later is needed; $(PYTHON) is none. On Debian: apt-get install python3 python3-venv' >&2; exit 1; }
