#!/usr/bin/env bash
# Every test there is, with a clear line at the end. `make test` runs it; as root, because some
# tests make network namespaces. The machine's own network is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
export PATH
# The same drawn cases on every run, so that a failure belongs to the change under test.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-4096}

began=$SECONDS
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
reserved=

finish() {
    local status=$?
    [[ -z $reserved ]] || echo "$reserved" >"$pages/nr_hugepages" || true
    local took=$((SECONDS - began))
    if [[ $status -eq 0 ]]; then
        echo "make test: PASS, all tests in $((took / 60)) min $((took % 60)) s"
    else
        echo "make test: FAIL after $((took / 60)) min $((took % 60)) s"
    fi
}
trap finish EXIT

if [[ $(id -u) -ne 0 ]]; then
    echo "Some tests make network namespaces: run this as root." >&2
    exit 1
fi

run() {
    echo "== $*"
    "$@" </dev/null
}

# Without DPDK first, and only so: the packet logic must not need it.
run cargo test -p dataplane --no-fail-fast
run cargo test -p dataplane --features count-lines --test simulator lines
run make loom
run make ports
run cargo build --release
run cargo test --workspace --exclude dataplane --no-fail-fast
run cargo run -p perf -- instructions --check

# EAL once more on hugepages: reserve some where there are none, give them back in the end.
wanted=128
hugepages_free() { cat "$pages/free_hugepages" 2>/dev/null || echo 0; }
if [[ $(hugepages_free) -lt $wanted && -w $pages/nr_hugepages ]]; then
    before=$(<"$pages/nr_hugepages")
    if echo $((before + wanted)) >"$pages/nr_hugepages" 2>/dev/null; then
        reserved=$before
    fi
fi
if [[ $(hugepages_free) -ge $wanted ]]; then
    run env SLUICEGATE_TEST_HUGEPAGES=1 cargo test -p dpdk-bindings
else
    echo "== SKIPPED: EAL on hugepages: this machine has $(hugepages_free) of $wanted free"
fi
