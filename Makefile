# `make help` lists the targets. Each installs what it needs, or says what to install.

SHELL := /bin/bash
.DEFAULT_GOAL := help

CARGO ?= cargo
TOOLS := packaging/tools

.PHONY: help demo test lint fmt bench soak sqlx deps-postgres deps-trace deps-lint

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: deps-postgres ## Collector with its private Postgres and an agent, on this machine
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-agent
	target/release/infratrack-collector demo --data-dir .demo $(DEMO_ARGS)

test: deps-postgres deps-trace ## All tests, with a real Postgres
	$(CARGO) build --workspace --bins --locked --quiet
	$(CARGO) test --workspace --locked --quiet

lint: deps-lint ## Formatting, lints, licences, SQL cache
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny --locked check bans licenses sources
	shellcheck .ci/run $(TOOLS)/*.sh
	$(TOOLS)/sqlx-cache.sh check

fmt: ## Format everything
	$(CARGO) fmt --all

bench: deps-postgres ## Measure a release build with a simulated fleet
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-agent --bin infratrack-fleet
	$(TOOLS)/bench.sh

soak: deps-postgres deps-trace ## Long campaigns: faults, damage, power loss, backlogs
	$(CARGO) build --release --workspace --bins --locked --quiet
	$(CARGO) test --release --workspace --locked -- --ignored --nocapture
	CARGO_TARGET_DIR=target/failpoints $(CARGO) build --workspace --bins --locked --quiet --features infratrack-testkit/failpoints
	CARGO_TARGET_DIR=target/failpoints $(CARGO) test -p infratrack-testkit --locked --features failpoints --test it -- \
		--include-ignored --nocapture power::a_kill points::
	$(TOOLS)/mutants.sh

sqlx: deps-postgres ## Write collector/.sqlx anew, after a change of SQL
	$(TOOLS)/sqlx-cache.sh write

deps-postgres:
	@$(TOOLS)/install.sh postgres

deps-trace:
	@$(TOOLS)/install.sh trace

deps-lint: deps-postgres
	@$(TOOLS)/install.sh lint
