# `make help` lists the targets. Each installs what it needs, or says what to install.

SHELL := /bin/bash
.DEFAULT_GOAL := help

CARGO ?= cargo
TOOLS := packaging/tools
# Programs and tests are built of the same dependencies, once.
TESTED := --workspace --locked --features infratrack-testkit/test-util

.PHONY: help demo test lint fmt bench bench-ingest bench-api bench-ui bench-packages bench-changes bench-agent bench-plays soak agent packages repository e2e e2e-full pictures sqlx

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: deps-postgres deps-ui ## Collector with its private Postgres and an agent, on this machine; SAMPLE=1: and a made-up fleet
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-agent
	target/release/infratrack-collector demo --data-dir .demo $(if $(filter 1,$(SAMPLE)),--sample) $(DEMO_ARGS)

test: deps-postgres deps-ui deps-disk deps-oidc deps-browser deps-aws deps-schemathesis deps-scripts deps-versions deps-updates ## All tests, with a real Postgres
	$(CARGO) build $(TESTED) --bins --quiet
	$(CARGO) test $(TESTED) --quiet
	$(TOOLS)/ansible-tests.sh smoke
	$(TOOLS)/uploader-tests.sh

lint: deps-lint ## Formatting, lints, licences, SQL cache
	! git grep -nE '^(<{7}|>{7}) '
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features infratrack-testkit/e2e --locked -- -D warnings
	$(CARGO) deny --locked check bans licenses sources
	shellcheck .ci/run $(TOOLS)/*.sh testkit/rigs/*.sh
	shellcheck -s sh packaging/*/deb/* packaging/*/rpm/*
	$(TOOLS)/ansible-lint.sh
	$(TOOLS)/sqlx-cache.sh check

fmt: ## Format everything
	$(CARGO) fmt --all

bench: bench-ingest bench-api bench-ui bench-packages bench-changes bench-agent bench-plays ## Measure a release build: docs/benchmarks.md

bench-ingest: deps-postgres deps-ui ## Measure the collector, beside what this machine can do
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-bench
	target/release/infratrack-bench ingest --document docs/benchmarks.md $(BENCH_ARGS)

bench-api: deps-postgres deps-ui ## Measure the API over 10,000 and 50,000 hosts with their past
	$(CARGO) build --release --locked --bin infratrack-bench
	target/release/infratrack-bench api --document docs/benchmarks.md $(BENCH_ARGS)

bench-ui: deps-postgres deps-ui deps-browser ## Measure the pages over 10,000 hosts, and what 200 clients of the live stream cost
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-bench
	target/release/infratrack-bench ui --document docs/benchmarks.md $(BENCH_ARGS)

bench-packages: deps-postgres deps-ui ## Measure 10,000 inventories of 1,000 packages, and questions about them
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-bench
	target/release/infratrack-bench packages --document docs/benchmarks.md $(BENCH_ARGS)

bench-changes: deps-postgres deps-ui ## Measure plans of 50 MB, records of plays, and questions about a year of changes
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-bench
	target/release/infratrack-bench changes --document docs/benchmarks.md $(BENCH_ARGS)

bench-agent: deps-postgres deps-ui deps-peers agent ## Measure the agent on its host, beside node_exporter, zabbix_agentd, facter and ansible
	$(CARGO) build --release --locked --bin infratrack-collector --bin infratrack-spool-workload --bin infratrack-bench-agent
	target/release/infratrack-bench-agent $(BENCH_AGENT_ARGS)

bench-plays: deps-plays-peers ## Measure what the callback costs plays, beside none and ARA
	target/ansible-2.19/bin/python testkit/bench/ansible/bench.py --ara target/ara --document docs/benchmarks.md $(BENCH_PLAYS_ARGS)

agent: ## The agent as it is shipped: target/agent/infratrack-agent
	$(CARGO) build --profile agent --locked --bin infratrack-agent

soak: deps-postgres deps-ui deps-disk deps-peers deps-updates deps-releases agent ## Long campaigns: faults, damage, power loss, backlogs, an idle hour
	$(TOOLS)/soak.sh

packages: deps-packages deps-ui deps-ansible ## A .deb and a .rpm of agent and collector, and the Ansible collection
	$(TOOLS)/packages.sh

repository: packages deps-repository ## Both signed, as REPOSITORY_KEY, laid out in REPOSITORY_DIR for apt and dnf
	$(TOOLS)/repository.sh "$(REPOSITORY_DIR)" "$(REPOSITORY_KEY)"

e2e: export PROFILE := dev
e2e: packages deps-hosts deps-repository ## Hosts that boot: installed, attacked, upgraded, removed (root; smoke form)
	$(TOOLS)/e2e.sh

e2e-full: packages deps-hosts deps-repository ## The same in its whole length
	INFRATRACK_E2E_FULL=1 $(TOOLS)/e2e.sh

pictures: ## Bring the pictures of docs/ui.md up to date with those of the last `make test`
	$(TOOLS)/pictures.sh

sqlx: deps-postgres deps-ui ## Write collector/.sqlx anew, after a change of SQL
	$(TOOLS)/sqlx-cache.sh write

deps-lint: deps-postgres deps-ui deps-ansible

deps-%:
	@$(TOOLS)/install.sh $*
