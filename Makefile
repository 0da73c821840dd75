# The commands of the README. Each installs what it needs, says what that is, and can be run again.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
PACKAGES := gcc libc6-dev pkg-config libseccomp-dev mmdebstrap nftables ca-certificates
STATE := /var/lib/bivouac
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIVOUAC := $(TARGET_DIR)/$(TARGET)/release/bivouac
COMPOSE_VERSION := $(shell sed -n 's|.*github.com/docker/compose/v2 v\([^ ]*\).*|\1|p' tests/e2e/compose/go.mod)
COMPOSE := $(abspath $(TARGET_DIR))/tools/docker-compose-$(COMPOSE_VERSION)

.PHONY: help setup build install demo test test-vm soak compose ci

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Install the Debian packages that are missing
	@missing=()
	for package in $(PACKAGES); do
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing+=($$package)
	done
	for tool in cargo go; do
		command -v $$tool >/dev/null || { echo "error: $$tool is missing: install Rust 1.89 and Go 1.26.8 or newer" >&2; exit 1; }
	done
	if (($${#missing[@]})); then
		echo "installing Debian packages: $${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "$${missing[@]}" </dev/null
	fi

build: setup ## Build the bivouac binary
	@cargo build --release --locked --package bivouac-cli
	echo "built $(BIVOUAC)"

install: build ## Put the binary in $(PREFIX)/bin
	@install -D -m 0755 $(BIVOUAC) $(DESTDIR)$(PREFIX)/bin/bivouac
	echo "installed $(DESTDIR)$(PREFIX)/bin/bivouac"

demo: build ## Bring up a cluster of three nodes, run a web app on it, ask it for a page
	@run() { echo "$$ $$*" | sed 's|$(BIVOUAC)|bivouac|'; "$$@"; }
	kubectl="$(BIVOUAC) kubectl -c demo --"
	run $(BIVOUAC) up -f examples/demo/cluster.yaml
	run $$kubectl apply -f examples/demo/web.yaml
	run $$kubectl rollout status deployment/web --timeout=2m
	run $$kubectl delete pod client --ignore-not-found
	run $$kubectl run client --image=bivouac.dev/web:0.1.0 --image-pull-policy=IfNotPresent --restart=Never -- \
		get http://web.default.svc.cluster.local
	run $$kubectl wait --for=jsonpath='{.status.phase}'=Succeeded pod/client --timeout=2m
	run $$kubectl logs client
	run $$kubectl get nodes
	run $(BIVOUAC) status demo
	echo "The cluster stays: use it with $(BIVOUAC) kubectl -c demo -- ..., remove it with $(BIVOUAC) down demo"

# The end-to-end tests also run over a container engine and `docker compose`: the machine's, or an engine that they start and stop
# themselves and a command that is built for them.
test: PACKAGES += docker.io iproute2 e2fsprogs
test: setup compose ## Run every test, the end-to-end ones included (as root)
	@docker compose version >/dev/null 2>&1 || export BIVOUAC_E2E_COMPOSE=$(COMPOSE)
	CI=true cargo xtask ci
	cargo build --release --locked --package bivouac-cli
	BIVOUAC=$(abspath $(BIVOUAC)) cargo test --locked --package bivouac-e2e

# In a guest of its own, with Debian's kernel and control groups version 2. Everything in it comes from Debian's packages.
test-vm: PACKAGES += qemu-system-x86 e2fsprogs
test-vm: setup ## Run end-to-end tests of the linux provider in an emulated machine (as root)
	@cargo build --release --locked --package bivouac-cli
	BIVOUAC=$(abspath $(BIVOUAC)) cargo xtask vm $(CASES)

# `make soak PROVIDER=docker COUNT=10`; docs/reliability.md has what came of it.
PROVIDER ?= linux
COUNT ?= 50
soak: PACKAGES += $(if $(filter docker,$(PROVIDER)),docker.io) iproute2
soak: setup ## Make and remove a cluster 50 times in a row (as root)
	@cargo build --release --locked --package bivouac-cli
	BIVOUAC=$(abspath $(BIVOUAC)) cargo run --locked --package bivouac-e2e --bin soak -- $(PROVIDER) $(COUNT)

# Compose cannot be installed by `go install`: its own go.mod excludes versions.
compose: setup
	@if docker compose version >/dev/null 2>&1 || [[ -x $(COMPOSE) ]]; then
		exit
	fi
	echo "building docker compose $(COMPOSE_VERSION) from Go modules, once; this can take 5 minutes"
	mkdir -p $(dir $(COMPOSE))
	cd tests/e2e/compose
	CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -o $(COMPOSE).new \
		-ldflags '-s -w -X github.com/docker/compose/v2/internal.Version=$(COMPOSE_VERSION)' github.com/docker/compose/v2/cmd
	mv $(COMPOSE).new $(COMPOSE)

# Cases over `docker compose` are ignored where there is none, unless $CI says that this is CI.
ci: ## What CI runs before the end-to-end tests
	@cargo xtask ci
