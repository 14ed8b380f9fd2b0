SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SERVICES := scripts/services.sh
MODULES = $(shell go list -m -f '{{.Dir}}')
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.1
BENCHTIME ?= 1s

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z\/]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Everything: the core alone, then all modules with -race, shuffled, against real servers
	@$(SERVICES) with $(MAKE) test/core test/work

.PHONY: test/core
test/core: ## The core module as its users get it: without the workspace, so with its own go.mod alone
	GOWORK=off go vet ./...
	GOWORK=off go test -timeout 20m ./...

.PHONY: test/work
test/work: ## All modules with -race, shuffled, against the servers of the environment
	go vet work
	go test -race -shuffle=on -timeout 20m -json work | go run ./scripts/testsum

.PHONY: soak
soak: ## As test/work with FRESHET_SOAK=1: many more seeds, up to two hours
	@FRESHET_SOAK=1 $(SERVICES) with go test -race -shuffle=on -timeout 2h work

.PHONY: bench
bench: ## The benchmarks of the core; BENCHTIME=1x for a look
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; golangci-lint where it is installed
	@files=$$(gofmt -l .); if [[ $$files ]]; then echo "not gofmt'ed:" $$files; exit 1; fi
	go vet work
	go run $(STATICCHECK) work
	@if ! command -v golangci-lint >/dev/null; then echo "golangci-lint is not installed: left out"; else \
		for dir in $(MODULES); do (cd $$dir && golangci-lint run ./...) || exit; done; fi

.PHONY: tidy
tidy: ## go mod tidy in every module
	@for dir in $(MODULES); do (cd $$dir && GOWORK=off go mod tidy) || exit; done

.PHONY: tidy/check
tidy/check: ## Fail where tidy would change something
	@for dir in $(MODULES); do (cd $$dir && GOWORK=off go mod tidy -diff) || exit; done

.PHONY: services
services: ## Start the servers that the tree needs, for go test by hand: source .services/env
	@$(SERVICES) start

.PHONY: services/stop
services/stop: ## Stop what make services started
	@$(SERVICES) stop
