# Each target makes what it needs: a virtual environment, Python packages, system packages. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # the steps of `test` are read from top to bottom
MAKEFLAGS += --no-print-directory

ENV := .venv
ENV_313 := .venv-3.13
BIN := $(ENV)/bin
READY := $(ENV)/.ready
READY_BENCH := $(ENV)/.ready-bench
READY_MUTANTS := $(ENV)/.ready-mutants
READY_313 := $(ENV_313)/.ready

# Every bench but those with a target of their own: bench/NAME.py or bench/NAME/__main__.py.
BENCHES = $(filter-out __init__ autobahn thresholds mutants soak soak_push soak_services worlds,$(sort \
    $(patsubst bench/%/__main__.py,%,$(wildcard bench/*/__main__.py)) $(patsubst bench/%.py,%,$(wildcard bench/*.py))))
FAST = $(wildcard tests/unit tests/laws)
PYTHON_313 = $(shell tools/environment python 3.13)

.PHONY: help up up-guard test check bench bench-thresholds autobahn worlds soak soak-services native mutants docs test-313 quick format explore clean servers redis nats

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY) ## run the demo of push: two gateways and a page; kill one, and nothing is lost
	@$(BIN)/budao demo push

up-guard: $(READY) ## run the demo of the guard: a shop and its failing stock service, with and without it
	@$(BIN)/budao demo guard

test: check pass-313 $(READY) servers ## everything a change must pass: check, a pass on 3.13 if there is one, all tests
	@$(BIN)/pytest -n 2 --dist loadfile

check: $(READY) ## formatting, lint, types, layers, docs; no tests
	@echo "ruff format"; $(BIN)/ruff format --check .
	@echo "ruff check"; $(BIN)/ruff check .
	@echo "mypy"; $(BIN)/mypy
	@echo "pyright"; $(BIN)/pyright
	@echo "import-linter"; $(BIN)/lint-imports --no-cache | sed -n '/^Contracts$$/,$$p'
	@echo "docs"; $(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

quick: $(READY) ## unit and law tests only
	@$(BIN)/pytest $(FAST)

explore: $(READY) ## the laws again, with new random examples and many more of them
	@HYPOTHESIS_PROFILE=explore $(BIN)/pytest tests/laws

format: $(READY) ## let Ruff rewrite what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(READY) ## build the site into build/docs
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "built: build/docs/index.html"

bench: $(READY_BENCH) servers ## speed beside the peers, in one run
	@for name in $(BENCHES); do echo "== bench.$$name"; $(BIN)/python -m "bench.$$name"; done

bench-thresholds: $(READY) ## false alarms and regressions caught: static, bare, hardened
	@$(BIN)/python -m bench.thresholds

autobahn: $(READY) ## the cases of the Autobahn test suite against our WebSockets, both sides; needs a Python 2.7
	@$(BIN)/python -m bench.autobahn
	@$(BIN)/python -m bench.autobahn --client

worlds: $(READY) servers ## every law of a store over many seeds, on every backend, with members killed and frozen
	@$(BIN)/python -m bench.worlds

soak: $(READY) ## ten minutes of everything at once; memory, descriptors and tasks must stay flat
	@$(BIN)/python -m bench.soak

soak-services: $(READY) ## ten minutes of services, callers and a store that are drained, killed, frozen and flooded
	@$(BIN)/python -m bench.soak_services

native: $(READY) ## build the send loop in Rust, put it into the environment, and hold it to its twin; needs cargo 1.74 or later
	@tools/environment command cargo cargo
	@$(BIN)/pip install --quiet --disable-pip-version-check ./native
	@$(BIN)/pytest native/tests

soak-push: $(READY) ## half an hour of gateways, a log and readers that are drained, killed, frozen, taken over and lied to
	@$(BIN)/python -m bench.soak_push

mutants: $(READY_MUTANTS) ## break the guard in small ways and count the breaks no test notices
	@HYPOTHESIS_PROFILE=mutants $(BIN)/mutmut run
	@$(BIN)/mutmut results
	@$(BIN)/mutmut export-cicd-stats >/dev/null; echo "share that survived:"
	@$(BIN)/python -c 'import json; s = json.load(open("mutants/mutmut-cicd-stats.json")); \
	    print("%d of %d = %.1f %%" % (s["survived"], s["total"], 100 * s["survived"] / s["total"]))'

test-313: ## unit and law tests on Python 3.13; fails if there is none
	@[ -n "$(PYTHON_313)" ] || { echo "no Python 3.13 on this machine" >&2; exit 1; }
	@$(MAKE) --silent pass-313

.PHONY: pass-313
pass-313:
	@if [ -n "$(PYTHON_313)" ]; then \
	    $(MAKE) --silent $(READY_313); \
	    echo "pytest on 3.13"; $(ENV_313)/bin/pytest -q -n 2 --dist loadfile -p no:cacheprovider $(FAST); \
	else \
	    echo "no Python 3.13 on this machine: its pass is left out"; \
	fi

servers: redis nats # what tests and benches run against, on loopback
	@tools/environment command etcd etcd-server
	@tools/environment command dnsmasq dnsmasq-base
	@tools/environment command nft nftables
	@tools/environment command ip iproute2
	@tools/environment command openssl openssl
	@tools/environment command node nodejs
	@tools/environment command chromium chromium

nats:
	@tools/environment command nats-server nats-server

redis:
	@tools/environment command redis-server redis-server

clean: ## remove what make made
	rm -rf $(ENV) $(ENV_313) build dist mutants

$(READY): pyproject.toml tools/environment
	@tools/environment make $(ENV) 3.11+ dev
	@touch $@

$(READY_BENCH): $(READY) bench/requirements.txt
	@tools/environment make $(ENV) 3.11+ dev --requirement bench/requirements.txt
	@touch $@

$(READY_MUTANTS): $(READY)
	@tools/environment make $(ENV) 3.11+ dev,mutants
	@touch $@

$(READY_313): pyproject.toml tools/environment
	@tools/environment make $(ENV_313) 3.13 test
	@touch $@
