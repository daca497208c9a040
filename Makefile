# Plain python3 and pip are enough: every target sets up .venv from the lock file first.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(BIN):$(PATH)
# Bars for a person; plain lines, one per job, for a log.
PROGRESS = $$([ -t 2 ] && echo --logger rich)

.PHONY: help setup demo check real real-quick test test-slow test-gpu test-slurm rehearsal rehearsal-quick test-hub regress lint lock clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## install the locked environment into .venv

$(READY): envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "error: Python %d.%d found, 3.11 to 3.13 needed; try make PYTHON=python3.12" % v)'
	@echo "setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r envs/lock.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: setup  ## run the demo suite and show its table, figures and report
	@snakemake demo $(PROGRESS) --config show=false
	@python -m thanos.stages.show results/suites/demo

check: setup  ## run the demo's small variant, into results/check
	@snakemake demo $(PROGRESS) --config quick=true results=results/check

real: setup  ## run the suite on a trained language model, half an hour on two cores
	@snakemake real $(PROGRESS)

real-quick: setup  ## run its small variant, five minutes, into results/check
	@snakemake real $(PROGRESS) --config quick=true results=results/check

regress: setup  ## compare the regression suite with the golden metrics
	@snakemake regress

test: setup  ## run the fast tests, two at a time
	@pytest -n 2 --dist loadgroup

test-slow: setup  ## run the tests that take longer than a minute
	@pytest -m 'slow and not slurm'

test-gpu: setup  ## run what runs on accelerators, on this machine's own if it has one
	@pytest -m accelerator

test-slurm: setup  ## run the demo on a real two-node Slurm, with faults; installs Debian's packages
	@pytest -m 'slurm and not slow' -rs

rehearsal: setup  ## run all of the paper's suite on that Slurm, with models of two blocks; hours
	@pytest -m 'slurm and slow' -k all -rs

rehearsal-quick: setup  ## the same with two methods under 2:4, on all its models
	@pytest -m 'slurm and slow' -k two-methods -rs

test-hub: setup  ## run the tests that need the Hugging Face hub
	@pytest -m hub

lint: setup  ## ruff, snakefmt, snakemake --lint and mypy
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules
	@snakemake --lint
	@mypy

lock:  ## resolve pyproject.toml anew and write envs/lock.txt
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet torch==2.13.0
	@.venv-lock/bin/pip install --quiet --editable '.[dev,slurm]'
	@head -2 envs/lock.txt > .venv-lock/lock.txt
	@.venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu//' >> .venv-lock/lock.txt
	@mv .venv-lock/lock.txt envs/lock.txt && rm -rf .venv-lock

clean:  ## remove results and caches, not the environment
	@rm -rf $(addprefix results/,models calibration windows pruned evaluations measurements latencies \
		suites sweeps testbed tracking timing) .snakemake
