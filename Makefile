# Everything here does its own set-up; `make demo` and `make test` want root.
SHELL := /bin/bash
export CGO_ENABLED ?= 0
GO ?= go
# Packages whose tests need a real kube-apiserver, which takes minutes to build. They
# run one after the other: what one of them does under load is part of what it shows.
CLUSTER := ./tests/apiserver/... ./tests/cluster/... ./tests/manifests/... ./tests/rollout/...
TESTED = $$($(GO) list ./... | grep -v -e /tests/apiserver -e /tests/cluster -e /tests/conformance -e /tests/faults -e /tests/manifests -e /tests/image -e /tests/rollout)

.PHONY: build demo picture test test-cluster test-faults soak test-image test-compare conformance race bench benchstat compare fuzz reproducible sbom compare-full lint update image tools tools-cluster tools-compare tools-uml clean

build: ## bin/kube-nft, static
	$(GO) build -trimpath -ldflags '-s -w' -o bin/kube-nft ./cmd/kube-nft

tools: ## what tests and demo call beside Go: ip and nft; and what kube-proxy's rules are made with
	@(for p in ip ipset iptables-legacy-restore iptables-nft-restore nft; do command -v $$p >/dev/null || exit 1; done) || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends iproute2 ipset iptables nftables; }

tools-cluster: tools ## what kube-proxy calls in iptables mode
	@command -v iptables-restore >/dev/null || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends iptables; }

tools-compare: tools-cluster ## what compares kube-nft with others, in all modes of kube-proxy
	@command -v strace >/dev/null || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends strace; }

tools-uml: ## what builds a kernel with IPVS, which is a process, and what runs on it
	@(for p in bc bison flex gcc ipset ipvsadm make xz; do command -v $$p >/dev/null || exit 1; done) || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends bc bison flex gcc ipset ipvsadm libc6-dev make xz-utils; }

demo: build tools ## the main job, shown in a terminal
	bin/kube-nft demo

picture: build tools ## docs/demo.svg: the demo, recorded
	@command -v termtosvg >/dev/null || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends termtosvg; }
	script -qefc "termtosvg docs/demo.svg -g 92x44 -m 60 -M 700 -D 6000 -c 'bin/kube-nft demo --short'" /dev/null

test: tools ## unit, kernel and end-to-end packet tests
	$(GO) test -timeout 20m $(TESTFLAGS) $(TESTED)

test-cluster: tools-cluster ## against a real control plane, built on first use
	$(GO) test -p 1 -timeout 40m $(TESTFLAGS) $(CLUSTER)

test-image: tools ## the image in its DaemonSet, on containerd; with the API server as above
	@command -v buildah >/dev/null && command -v containerd >/dev/null && command -v runc >/dev/null || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends buildah containerd runc; }
	$(GO) test -timeout 30m $(TESTFLAGS) ./tests/image

test-faults: tools ## what goes wrong around it goes wrong, under traffic, with figures; see docs/faults.md
	$(GO) test -v -timeout 15m $(TESTFLAGS) ./tests/faults

SOAK ?= 20m
soak: tools ## SOAK=20m: a cluster that changes 200 times a second, with faults among it
	$(GO) test -v -count=1 -timeout 0 -run TestSoak ./tests/faults -soak $(SOAK)

conformance: tools ## beside the real kube-proxy, built on first use
	$(GO) test -timeout 30m ./tests/conformance $(TESTFLAGS)

test-compare: tools-compare ## the comparison itself, in a cluster of no size
	cd tests/compare && $(GO) test -timeout 20m $(TESTFLAGS) ./...

race: tools ## the packages with goroutines under the race detector; wants gcc
	CGO_ENABLED=1 $(GO) test -race -short ./cmd/... ./nft/... ./controller/... ./tests/netlab/

bench: build tools ## times beside the raw netlink floor, in a namespace of its own
	bin/kube-nft bench

BENCH ?= Compile|Encode|From|Change|Read|Adopt|ColdStart
COUNT ?= 6
BENCHTIME ?= 0.5s
benchstat: tools ## BASE=<commit>: its benchmarks and those of this tree, in turns
	tests/tools/benchstat.sh '$(BASE)' '$(BENCH)' '$(COUNT)' '$(BENCHTIME)'

bin/compare: FORCE
	$(GO) build -C tests/compare -o ../../bin/compare .

compare: bin/compare tools-compare ## beside kube-proxy, in minutes once its programs are built; results in bin/compare-results
	bin/compare all

compare-full: bin/compare tools-compare tools-uml ## the same in large clusters, which takes an hour and a half
	bin/compare all --full

reproducible: ## two builds, elsewhere and without a cache, are the same to the last bit
	tests/tools/reproducible.sh

VERSION ?= v0.0.0-$(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
sbom: build ## bin/sbom.json: what is in bin/kube-nft and under which licences, in CycloneDX
	GO='$(GO)' tests/tools/sbom.sh bin/kube-nft bin/sbom.json '$(VERSION)'

FUZZTIME ?= 1m
FUZZ ?= .
fuzz: ## every parser, FUZZTIME for each target; FUZZ=<pattern> of packages and names
	tests/tools/fuzz.sh '$(FUZZTIME)' '$(FUZZ)'

lint: ## gofmt, vet, staticcheck, a tidy go.mod
	@test -z "$$(gofmt -l .)" || { gofmt -d . ; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	cd tests/compare && $(GO) vet ./... && $$(cd ../.. && $(GO) tool -n staticcheck) ./... && $(GO) mod tidy -diff

update: ## rewrite the golden files, docs/man, what documentation is made from code, and deploy/kube-nft.yaml
	$(GO) test ./nft/kernel ./tests ./controller/config ./cmd/kube-nft ./tests/manifests -update

image: ## a container image with nothing but the binary
	docker build -t kube-nft .

clean:
	rm -rf bin

FORCE:
