# Everything a person or CI does with Laurel. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

RIG := tests/rig/rig
BIN := $(CURDIR)/.cluster/bin
TARGET := x86_64-unknown-linux-gnu
CRD_DIRS := crds charts/laurel/files/crds
OPERATOR := target/$(TARGET)/release/laurel
# `existing` uses the cluster of your own KUBECONFIG; see README.md for the images it needs.
CLUSTER ?= rig
OPERATOR_IMAGE ?=

export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-16s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## Shows the main job on a real cluster: promotions and rollbacks under load, with figures (GATEWAY=1: shares, a challenger and a canary behind a Gateway)
	@hack/demo

.PHONY: test
test: ## Runs every check and every test: formatting, lints, docs, unit, chart, API server, real cluster
	@tests/scripts/test

.PHONY: test-servers
test-servers: ## Runs the client, and promotions, with all supported MLflow servers (SERVERS="2.9 3.8": only the client, with these); needs `make cluster-api`
	@tests/scripts/servers $(or $(SERVERS),--promotions)

.PHONY: test-drift
test-drift: ## Runs the job that looks for drift (config/samples/drift), with Evidently and MLflow servers; needs no cluster
	$(RIG) drift-venv
	$(BIN)/python-drift -m unittest discover tests/drift

.PHONY: check
check: lint crds-check ## Checks formatting, lints, docs and the generated CRDs; warnings fail in CI only

.PHONY: lint
lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- $(if $(CI),-D warnings)
	RUSTDOCFLAGS="$(if $(CI),-D warnings)" cargo doc --no-deps --locked --document-private-items

.PHONY: deny
deny: ## Checks licences, sources, bans and, where their database can be had, advisories of all dependencies
	@hack/deny

.PHONY: crds
crds: ## Writes the CRDs from the Rust types to crds/ and into the chart
	cargo build --locked --bin laurel
	rm -f $(addsuffix /*.laurel.dev.yaml,$(CRD_DIRS))
	target/debug/laurel crds $(addprefix --output-dir ,$(CRD_DIRS))

# As a test, so that nothing is compiled for it that the tests do not need.
.PHONY: crds-check
crds-check:
	cargo test --quiet --locked --test distribution -- --exact $(addprefix chart::crds::,files_are_as_generated \
	  the_program_writes_a_file_for_each_into_every_directory)

.PHONY: dev
dev: ## Runs the operator on this machine against the cluster of your KUBECONFIG; see hack/README.md
	kubectl apply --server-side --force-conflicts -k crds
	cargo run --locked -- run --log-format=text --http-address=127.0.0.1:8080 $(ARGS)

.PHONY: cluster
cluster: ## Starts a real Kubernetes node in namespaces of this machine (state in .cluster/)
	$(RIG) up full

.PHONY: cluster-api
cluster-api: ## Starts only a control plane, with simulated pods
	$(RIG) up api

.PHONY: cluster-down
cluster-down: ## Stops both and leaves the machine as it was
	$(RIG) down all

.PHONY: operator
operator: ## Builds the operator as a static binary
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET)

.PHONY: install
install: ## Installs Laurel with Helm into the cluster (CLUSTER=existing: into yours, with OPERATOR_IMAGE=…)
	@hack/install

.PHONY: mlflow
mlflow: ## Starts MLflow in the cluster and registers the models of the demo
	$(RIG) mlflow-up
	$(RIG) models

.PHONY: soak
soak: ## Promotes and rolls back under load while the operator and MLflow are killed, pods evicted and nodes drained (MINUTES=30 or CHANGES=500; SEED=7); needs the cluster of `make demo`
	cargo run --quiet --locked --example soak -- $(if $(CHANGES),--changes=$(CHANGES),--minutes=$(or $(MINUTES),10)) $(if $(SEED),--seed=$(SEED))

.PHONY: bench
bench: ## Prints what Laurel costs beside the same done by hand, at 2,000 ModelAliases (N=10000 for more); needs `make cluster-api`
	cargo bench --quiet --locked --bench scale $(if $(N),-- --aliases=$(N))

.PHONY: bench-gateway
bench-gateway: ## Prints how fast a rollback is behind a route, beside the same by hand, and what keeping connections saves; needs the cluster of `make demo GATEWAY=1`
	cargo run --quiet --locked --example gateway

.PHONY: bench-event
bench-event: ## Prints what one event costs at 100, 1,000 and 10,000 objects; needs no cluster
	cargo run --quiet --release --locked --example event

.PHONY: bench-analysis
bench-analysis: ## Prints simulated false alarms and time to detection of live rules and experiments (RUNS=2000, SEED=7); needs no cluster
	cargo run --quiet --release --locked --example analysis -- $(if $(RUNS),--runs=$(RUNS)) $(if $(SEED),--seed=$(SEED))

.PHONY: bench-webhook
bench-webhook: ## Prints how soon a moved alias is acted on, with webhooks and with polls; needs `make cluster-api`
	cargo test --quiet --locked --test control_plane from_an_alias_set_in_mlflow -- --ignored --nocapture

.PHONY: bench-namespace
bench-namespace: ## Prints how long a namespace takes to end with 2,000 ModelAliases and Laurel in it; needs `make cluster-api`
	cargo test --quiet --locked --test least_privilege a_namespace_with_2000 -- --ignored --nocapture

.PHONY: fuzz
fuzz: ## Throws generated input at parsing, validation, merging and decision: SECONDS=60 for each target
	@SECONDS_EACH=$(or $(SECONDS),60) hack/fuzz
