# Berth's front door. `make help` lists what can be asked for; the work itself is in scripts/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
# The recipes' tools must speak one language, whatever the machine's.
export LC_ALL := C.UTF-8

SHIM = $$(scripts/build --path)
# A benchmark's own client must not be what is measured: optimise it, but spare it the shim's slow link.
BENCH_ENV := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

# What drives containers through the shim.
CRUN_SUITES := -p berth-integration-tests --test direct --test containerd --test cri --test gpu

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing on this machine (Debian, as root), or say what it is
	@scripts/setup

.PHONY: demo
demo: setup build ## show containers getting their GPUs in a private containerd; simulated GPUs where there is no driver
	@eval "$$(scripts/simnode)"; export BERTH_TEST_SHIM=$(SHIM); \
		$(CARGO) run --locked --quiet -p berth-integration-tests --bin berth-demo

.PHONY: test
test: setup build ## run every test, end-to-end ones on several containerd versions included
	@scripts/test

.PHONY: test-reference
test-reference: setup ## run the same suites against containerd-shim-runc-v2: the reference tests the tests
	@BERTH_TEST_REFERENCE=1 scripts/test -p berth-integration-tests

.PHONY: test-crun
test-crun: export BERTH_TEST_RUNTIME := crun
test-crun: setup build ## run what drives containers with crun in runc's place
	@scripts/test $(CRUN_SUITES)

.PHONY: lab
lab: setup build ## boot a node with several NUMA nodes, cgroup v2 and systemd, and test what only it can show (ARGS="--short")
	@scripts/lab $(ARGS)

.PHONY: gpu-test
gpu-test: ## test on this machine's real GPU; says why it skips what cannot run here
	@scripts/gpu-test

.PHONY: soak
soak: setup build ## a thousand containers, execs and random calls of each client: nothing may leak, grow or hang
	@export BERTH_SOAK=1000; \
	for trials in churn random::; do scripts/test -p berth-integration-tests "$$trials"; done

.PHONY: bench
bench: setup build ## measure Berth beside containerd-shim-runc-v2 (ARGS="--quick" for fewer runs)
	@scripts/fetch-containerd || echo "bench: no newer reference could be fetched; using the installed one"
	@eval "$$(scripts/simnode)"; export BERTH_TEST_SHIM=$(SHIM); \
		$(BENCH_ENV) $(CARGO) run --locked --release -p berth-integration-tests --bin berth-bench -- $(ARGS)

.PHONY: bench-packing
bench-packing: ## compare how much fits on a node by placement policy; needs no GPU, no root, no containerd
	@$(BENCH_ENV) $(CARGO) run --locked --release --quiet -p berth-integration-tests --bin berth-packing

.PHONY: build
build: ## build the release programs (the shim statically linked) and print where they are
	@scripts/setup --build
	@scripts/build

.PHONY: install
install: ## install what `make build` has built (as root; PREFIX=/usr/local, SYSCONFDIR=/etc, DESTDIR=)
	@scripts/install

.PHONY: uninstall
uninstall: ## remove what `make install` has put there, given the same PREFIX, SYSCONFDIR and DESTDIR
	@scripts/uninstall

.PHONY: lint
lint: ## formatting, clippy, and cargo-deny and shellcheck where they are installed
	@scripts/lint

.PHONY: fmt
fmt: ## format the code
	@$(CARGO) fmt --all

.PHONY: clean
clean: ## remove what was built and fetched
	@$(CARGO) clean
