# Everything a developer types. `make test` is what CI runs after its checks.
GO ?= go
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT := $(GO) run mvdan.cc/gofumpt@v0.12.0
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 20s

.PHONY: build test race lint fuzz bench bench-send demo cross fmt faults model sim tools mutations

build: ## the one binary
	$(GO) build -trimpath -ldflags "-X imroute/node.Version=$(VERSION)" -o imctl ./cli/imctl

test: ## everything, under the race detector but for the simulation (golang/go issue 78156: the detector may crash in it)
	$(GO) test -race -timeout 10m ./...
	$(GO) test -timeout 5m -run '^TestSimulation$$' ./node/nodetest

race: test

fmt:
	$(GOFUMPT) -l -w cli mesh node raftfsm

lint: ## formatting, vet, staticcheck; prints what is wrong and fails
	@out=$$($(GOFUMPT) -l cli mesh node raftfsm); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...

cross: ## it builds for the systems we say it does
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cli/imctl
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cli/imctl
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cli/imctl

fuzz: ## each fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

bench: ## the parts that can be measured alone
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-send: build ## the load generator on a cluster of its own
	./imctl bench send

faults: ## the whole fault matrix on real processes, about 20 minutes, and a LAN that is split while nodes found a cluster; prints a table
	IMROUTE_FAULTS=1 $(GO) test -race -count=1 -timeout 30m -run 'TestFaultMatrix|TestDiscoverSplitLAN' -v ./node/nodetest

sim: ## whole clusters in virtual time, a seed a second, for IMROUTE_SIM_MINUTES (5); prints how to run a failing seed again
	IMROUTE_SIM_MINUTES=$(or $(IMROUTE_SIM_MINUTES),5) $(GO) test -count=1 -timeout 0 -run TestSimulation -v ./node/nodetest

tools: ## what some tests need beside Go (they are skipped without): strace, a packet filter, ip, a browser
	@if command -v strace && command -v nft && command -v ip && command -v chromium; then echo "all there"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && apt-get install -y -q --no-install-recommends strace nftables iproute2 chromium fonts-dejavu-core; \
	else echo "install strace, nftables, iproute2 and chromium"; exit 1; fi

mutations: ## takes the rules of the program away one by one on real processes, about 6 minutes; fails if nobody notices
	IMROUTE_MUTATIONS=1 $(GO) test -count=1 -timeout 30m -run 'TestMutations$$' -v ./node/nodetest

model: ## the model check of lease, ConfirmTerm and takeover with a larger bound, some minutes
	IMROUTE_MODEL=large $(GO) test -count=1 -run 'TestModel' -timeout 20m ./node

demo: ## three nodes on this machine
	$(GO) run ./cli/imctl dev
