# What a developer or an operator types; `make` alone lists it.
#
# Needed: Rust (rustup installs the version in rust-toolchain.toml by itself), a C compiler with
# its headers for the cryptography of TLS, and certificates to fetch crates with. `tools` installs
# what is missing of the last two on Debian. Neither cmake, perl, pkg-config nor OpenSSL is needed.
# `test` needs Go besides, to verify ledgers with software of others; `test-tools` installs it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Given on to the program: make demo ARGS="--persons 1000", make bench ARGS="import --records 100000"
ARGS ?=
# How many demonstrations `soak` runs, each from another seed, mutations per decoder, and runs of
# the replication simulator.
SOAK_ROUNDS ?= 10
SOAK_MUTATIONS ?= 1000000
# How often the store's soak cuts the power, how many images it makes of each step of a crash, and
# how many rounds each test that kills makes: thousands of kills, tens of cuts.
SOAK_CUTS ?= 60
SOAK_IMAGES ?= 60
SOAK_KILLS ?= 2000
SOAK_NODE_KILLS ?= 300
SOAK_SEEDS ?= 1000000
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: help demo test soak soak-store bench fmt lint doc fuzz tools test-tools build

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: build ## build, then run a realm of five nodes until Ctrl-C
	@exec "$(TARGET_DIR)/release/fangzhi" demo $(ARGS)

test: tools test-tools ## run all tests
	cargo test --workspace --locked

soak: build soak-store ## run the long tests: kills, power cuts, mutations, many demonstrations
	FANGZHI_MUTATIONS=$(SOAK_MUTATIONS) PROPTEST_CASES=4096 FANGZHI_SIM_SEEDS=$(SOAK_SEEDS) \
		cargo test --release --workspace --locked -- --include-ignored
	@for seed in $$(seq 1 $(SOAK_ROUNDS)); do \
		echo "demonstration $$seed of $(SOAK_ROUNDS)"; \
		"$(TARGET_DIR)/release/fangzhi" demo --once --json --seed "$$seed" $(ARGS); \
	done

soak-store: tools ## kill processes thousands of times and cut the power (as root, on loop devices)
	FANGZHI_SOAK_ROUNDS=$(SOAK_KILLS) cargo test --release --locked -p store --test kill -- --nocapture
	FANGZHI_SOAK_CUTS=$(SOAK_CUTS) cargo test --release --locked -p store --test power -- --nocapture
	FANGZHI_CRASH_IMAGES=$(SOAK_IMAGES) cargo test --release --locked -p store --lib -- --nocapture crashes
	FANGZHI_SOAK_ROUNDS=$(SOAK_NODE_KILLS) cargo test --release --locked -p tests --test crash -- --nocapture

bench: build ## measure, each figure beside its limit in the same run
	@exec "$(TARGET_DIR)/release/fangzhi" bench $(ARGS)

fmt: tools ## format the sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

lint: tools ## check format, lints and, if cargo-deny is there, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; \
	else echo "cargo-deny is not installed: dependencies were NOT checked; cargo install cargo-deny"; fi

doc: tools ## build the documentation of all crates
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked

fuzz: tools ## fuzz every decoder for FUZZ_SECONDS each; see fuzz/README.md
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@command -v c++ >/dev/null || { echo "libFuzzer needs a C++ compiler: install g++"; exit 1; }
	cd fuzz && cargo run --example seeds
	cd fuzz && for target in $(FUZZ_TARGETS); do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done

build: tools ## build the program in release
	cargo build --release --locked -p node

# Installs what the array `missing` names, and says so before it does.
define INSTALL_MISSING
if (( $${#missing[@]} )); then \
		what="$${missing[*]}"; \
		sudo=(); (( EUID == 0 )) || sudo=(sudo); \
		if ! command -v apt-get >/dev/null; then \
			echo "missing: $$what (Debian's names). There is no apt-get here; install them and run make again." >&2; exit 1; \
		elif (( EUID != 0 )) && ! command -v sudo >/dev/null; then \
			echo "missing: $$what. There is no sudo; as root run: apt-get install $$what" >&2; exit 1; \
		fi; \
		echo "installing what is missing: $$what"; \
		if ! { "$${sudo[@]}" apt-get update -q && \
			"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$what; }; then \
			echo "missing: $$what, and apt-get could not install them; see its words above, then run make again." >&2; exit 1; \
		fi; \
	fi
endef

# What builds the program.
tools:
	@missing=(); \
	probe=$$(mktemp -d); trap 'rm -rf "$$probe"' EXIT; \
	printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$$probe/probe.c"; \
	command -v cc >/dev/null || missing+=(gcc); \
	cc -o "$$probe/probe" "$$probe/probe.c" 2>/dev/null || missing+=(libc6-dev); \
	[[ -e /etc/ssl/certs/ca-certificates.crt || -n "$${CARGO_HTTP_CAINFO:-$${SSL_CERT_FILE:-}}" ]] \
		|| missing+=(ca-certificates); \
	$(INSTALL_MISSING); \
	if ! command -v cargo >/dev/null; then \
		echo "Rust is missing: install it as https://rustup.rs says, then run make again." >&2; exit 1; \
	fi; \
	wanted=$$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml); \
	found=$$(rustc --version | cut -d' ' -f2) || { \
		echo "Rust $$wanted could not be installed; run: rustup toolchain install $$wanted" >&2; exit 1; }; \
	if [[ "$$(printf '%s\n' "$$wanted" "$$found" | sort -V | head -1)" != "$$wanted" ]]; then \
		echo "Rust $$found is too old, $$wanted is needed: install rustup as https://rustup.rs says, then run make again." >&2; exit 1; \
	fi

# What the tests need besides: the verifiers of tests/outside, which are not of this project.
# aics-tlog needs Python 3.12, which Debian 12 does not have: where there is none, the test says so.
# cryptography, with which keys and cells are opened a second time, does with Python 3.9.
test-tools:
	@missing=(); \
	if [[ "$${FANGZHI_WITHOUT_GO:-}" != 1 ]]; then \
		command -v go >/dev/null || missing+=(golang-go); \
		[[ -d /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog ]] || missing+=(golang-golang-x-mod-dev); \
	fi; \
	[[ "$${FANGZHI_WITHOUT_PROMTOOL:-}" == 1 ]] || command -v promtool >/dev/null || missing+=(prometheus); \
	command -v ip >/dev/null || missing+=(iproute2); \
	[[ "$${FANGZHI_WITHOUT_AGE:-}" == 1 ]] || command -v age >/dev/null || missing+=(age); \
	if [[ "$${FANGZHI_WITHOUT_CRYPTOGRAPHY:-}" != 1 ]]; then \
		command -v python3 >/dev/null || missing+=(python3); \
		python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv); \
	elif [[ "$${FANGZHI_WITHOUT_AICS:-}" != 1 ]] \
		&& python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
		python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv); \
	fi; \
	$(INSTALL_MISSING)
