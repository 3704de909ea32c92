# Each of these installs what it needs first (Debian's packages, through apt-get) unless it is there.
#
#   make demo       a gateway between two network namespaces, with real clients (as root)
#   make baremetal  a release build with the driver of every NIC that DPDK knows
#   make test       every test (as root: some make network namespaces)
#   make loom       the models of what lcores share, in every interleaving (part of make test)
#   make ports      the 64 512 ports of an address, used up (part of make test)
#   make soak       new schedules of several workers for SLUICEGATE_SOAK_SECS (600) seconds, new random
#                   packets beside the kernel for as long, and SLUICEGATE_RULESETS (1000) new random
#                   rule sets beside it (as root)
#   make bench      every row the product is judged by, beside its peers: perf/out/report (as root, three
#                   rounds; make bench-quick tries everything in minutes, make bench-full takes nine rounds)
#   make lint       formatting and clippy, warnings as errors
#   make install    binary, configurations and documents under PREFIX (and DESTDIR)

PREFIX ?= /usr/local
SHELL = /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)

DOCUMENTS = README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md LICENSE

.PHONY: all baremetal demo test loom ports soak bench bench-quick bench-full lint install clean

all:
	tests/packages.sh build
	cargo build --release

baremetal:
	@tests/packages.sh build
	cargo build --release --features all-drivers
	@tests/drivers.sh target/release/sluicegate all

demo:
	@tests/packages.sh demo
	@cargo build --release
	@tests/demo.sh target/release/sluicegate

test:
	@tests/packages.sh test
	@tests/run.sh

# Optimised, since a model runs ten thousands of times, but not for long.
loom: export RUSTFLAGS = --cfg loom
loom: export CARGO_PROFILE_RELEASE_LTO = off
loom: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = 16
loom:
	@tests/packages.sh build
	cargo test --target-dir target/loom -p dataplane --release --test loom

# Optimised, for the same reason. A soak stops at the first schedule that goes wrong and says how to
# replay it; of random packets and rule sets it tells each that differs.
ports soak: export CARGO_PROFILE_RELEASE_LTO = off
ports soak: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = 16
ports:
	@tests/packages.sh build
	cargo test --target-dir target/soak -p dataplane --release --test simulator ports

soak: export SLUICEGATE_SOAK_SECS ?= 600
soak:
	@tests/packages.sh test
	cargo test --target-dir target/soak -p dataplane --release --test simulator soak -- --ignored --nocapture
	cargo test --target-dir target/soak --release --test comparison random::soak -- --ignored --nocapture
	cargo test --target-dir target/soak --release --test comparison rulesets::soak -- --ignored --nocapture

# Fails if a row that is judged misses its goal.
bench: effort =
bench-quick: effort = --quick
bench-full: effort = --full
bench bench-quick bench-full:
	@tests/packages.sh bench
	cargo build --release
	cargo run --release -p perf -- bench $(effort)

lint:
	@tests/packages.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p dataplane --all-targets -- -D warnings
	cargo clippy -p sluicegate-fuzz --all-targets --features libfuzzer -- -D warnings

install:
	@test -x target/release/sluicegate || { echo "first: make all"; exit 1; }
	install -Dm 755 target/release/sluicegate $(DESTDIR)$(PREFIX)/sbin/sluicegate
	install -d $(DESTDIR)$(PREFIX)/share/sluicegate/configs
	install -m 644 configs/* $(DESTDIR)$(PREFIX)/share/sluicegate/configs
	install -d $(DESTDIR)$(PREFIX)/share/doc/sluicegate/docs/adr
	install -m 644 $(DOCUMENTS) $(DESTDIR)$(PREFIX)/share/doc/sluicegate
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/sluicegate/docs
	install -m 644 docs/adr/*.md $(DESTDIR)$(PREFIX)/share/doc/sluicegate/docs/adr

clean:
	cargo clean
