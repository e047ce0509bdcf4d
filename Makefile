# What a person does here, each in one command. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
GUESTS ?= bookworm trixie
comma := ,
empty :=
space := $(empty) $(empty)

# pystemd comes as source; the bus tests need a bus, and systemd's own tools are the oracle for sizes and spans
HOST_PACKAGES := gcc pkg-config libsystemd-dev python3-dev python3-venv dbus systemd

# the tests start hundreds of interpreters, each of which would compile all that it imports
unexport PYTHONDONTWRITEBYTECODE

# a file stays with one worker, so that what its tests share is made once; the files that take longest come first
PYTEST := $(BIN)/pytest -q -n logical --dist=loadfile --no-loadscope-reorder --timeout=300 tests/days tests/cli tests/bus tests/unit

# some of the guests' programs have no suffix
PYTHON_SOURCES := src bench tests $(shell grep -lsE '^\#!.*python' vagrant/* vagrant/workloads/* ansible/*)
SHELL_SOURCES := .ci/run $(shell grep -lsE '^\#!.*\b(ba)?sh\b' vagrant/* debian/* debian/tests/* man/* ansible/roles/*/files/*)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: $(VENV)/ready ## a leaking service is logged, signalled and stopped; its neighbour lives (sets up what it needs)
	vagrant/demo

# The guests boot one after the other, which leaves a core to what needs none. Packages are installed before that: one
# apt at a time.
.PHONY: test
test: check ## every test, the package and the guests included (sets up what it needs)
	vagrant/setup-host
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target guests slow lint-role deb
	$(MAKE) --no-print-directory e2e

.PHONY: check
check: $(VENV)/ready ## format, types, lint, unit, bus and cli tests; under a minute
	$(MAKE) --no-print-directory --jobs=2 quick types lint format

.PHONY: format
format: $(VENV)/ready
	$(BIN)/ruff format --quiet --check $(PYTHON_SOURCES)

.PHONY: lint
lint: $(VENV)/ready
	$(BIN)/ruff check --quiet $(PYTHON_SOURCES)
	$(BIN)/shellcheck $(SHELL_SOURCES)

.PHONY: lint-role
lint-role: $(VENV)/ready ## ansible-lint's production profile for the Ansible role; apart, since it takes as long as all of lint
	cd ansible && PATH=$(CURDIR)/$(BIN):$$PATH ansible-lint -q

.PHONY: types
types: $(VENV)/ready
	$(BIN)/mypy

.PHONY: quick
quick: $(VENV)/ready
	$(PYTEST) -m "not slow"

.PHONY: slow
slow: $(VENV)/ready ## the tests that `make check` leaves out: of what Ansible does, and of more input
	$(PYTEST) -m slow

.PHONY: e2e
e2e: $(VENV)/ready guests ## the end-to-end tests alone, in the guests that run (GUESTS="bookworm" for one)
	$(BIN)/pytest -q -n $(words $(GUESTS)) --guest $(subst $(space),$(comma),$(GUESTS)) tests/e2e

.PHONY: bench
bench: $(VENV)/ready ## what unitmem costs beside its peers, in a guest (QUESTIONS="memory idle" QUICK=1 for a part)
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m bench $(if $(QUICK),--quick) $(QUESTIONS)

.PHONY: deb
deb: ## the Debian package into dist/: built, held against lintian, installed, tried and purged (sets up what it needs)
	debian/build-deb

.PHONY: wheels
wheels: $(VENV)/ready ## what the Ansible role installs on Debian 12 into dist/: the wheel, and those that it requires
	ansible/build-wheels

.PHONY: guest
guest: $(VENV)/ready ## bring a Debian 13 guest up with unitmem installed, and leave it running
	vagrant/setup-host
	vagrant/guest up trixie
	vagrant/guest install trixie
	@echo "enter it with: vagrant/guest ssh trixie"

.PHONY: guests
guests:
	vagrant/setup-host
	for suite in $(GUESTS); do vagrant/guest up $$suite; done

.PHONY: fix
fix: $(VENV)/ready ## format the code, and mend what the linter can
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/ruff check --fix $(PYTHON_SOURCES)

.PHONY: lock
lock: ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --quiet --upgrade --output-file requirements.lock

.PHONY: clean
clean: ## remove the guests, the virtual environment and every cache
	-test ! -d vagrant/.vagrant || vagrant/guest destroy
	rm -rf $(VENV) bench/loops .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/ready: requirements.lock pyproject.toml
	@if command -v dpkg-query >/dev/null; then \
	    missing=$$(for package in $(HOST_PACKAGES); do \
	        dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	    if [ -n "$$missing" ]; then \
	        $(SUDO) apt-get update -qq; \
	        $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $$missing; \
	    fi; \
	fi
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
