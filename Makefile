# See AGENTS.md for what each target is for.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: build build-static test lint fmt vuln bench soak afternoon demo chaos fuzz tools golden clean

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := $(GO) tool -modfile=tools/go.mod

# Packages tested at the same time. The end-to-end tests start servers.
TEST_PARALLEL ?= 2
TEST_TIMEOUT  ?= 20m
FUZZTIME      ?= 30s

# With cgo: libzstd and the C page checksum.
build:
	mkdir -p bin
	CGO_ENABLED=1 $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/walkeep ./cmd/walkeep-wal

# Without cgo: slower, and no shared library is needed.
build-static:
	mkdir -p bin/static
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/static/ ./cmd/walkeep ./cmd/walkeep-wal

# Everything, against real servers. Without symbols for debuggers test programs
# are linked in half the time. TESTFLAGS and PKG narrow it:
#   make test PKG=./repo/... TESTFLAGS='-run Lease -v'
PKG ?= ./...
test: tools
	$(GO) vet ./...
	$(GO) test -ldflags '-s -w' -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(PKG)

lint:
	@files=$$($(TOOL) gofumpt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$files" ]; then echo "not formatted (make fmt):"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./...
	$(TOOL) staticcheck ./...

fmt:
	$(TOOL) gofumpt -w $$(git ls-files -co --exclude-standard '*.go')

# Known vulnerabilities in what we depend on. Needs the network.
vuln:
	$(TOOL) govulncheck ./...

# Each fuzz test for FUZZTIME.
fuzz:
	GO=$(GO) scripts/fuzz.sh $(FUZZTIME)

# Writes golden files and config/schema.json again; look at the difference.
golden:
	$(GO) test ./config ./cmd/walkeep ./api/rest -update
	$(GO) test ./api/rest -update # the document has the examples, which were just made

# The proof by difference, for hours: make soak SOAK=8h
SOAK ?= 1h
soak: tools
	$(GO) test ./integration/difference -timeout 0 -soak $(SOAK) -v

# A service through an afternoon's schedule: killed leaders, a dead repository, a
# failover; a restore of each repository at the end, and a picture of the page in
# bin/afternoon.
AFTERNOON ?= 10m
afternoon: tools
	mkdir -p bin/afternoon
	PAGE_PICTURES=$${PAGE_PICTURES:-$(CURDIR)/bin/afternoon} $(GO) test ./integration/serve -run TestAfternoon -timeout 0 -afternoon $(AFTERNOON) -v

bench: build tools
	scripts/bench.sh

demo: build
	scripts/demo.sh

# The failover proof: real Patroni clusters, faults in random order, and after
# every round a restore. pgBackRest goes through the same beside walkeep.
#   make chaos ROUNDS=50 CHAOSFLAGS='-seed 7 -svg docs/failover.svg'
ROUNDS ?= 10
chaos: build tools
	scripts/chaos.sh -rounds $(ROUNDS) $(CHAOSFLAGS)

# What tests and benchmarks need: Debian packages, PostgreSQL 13 to 18, object
# stores, kube-apiserver. Fast when it is all there.
tools:
	scripts/install-packages.sh
	scripts/install-postgres.sh
	scripts/install-stores.sh
	scripts/install-browser.sh
	scripts/install-kube.sh

clean:
	rm -rf bin
