#!/usr/bin/env bash
# Makes sure that what Sluicegate needs to build (and, with another word, to run its demo, tests
# or benchmarks) is on this machine. Looks first, and calls apt-get only for what is missing; so a machine
# that has everything is left alone and needs no network.
#
#   tests/packages.sh [build|demo|test|bench|lint]
set -euo pipefail

purpose=${1:-build}
missing=()

# Wants a command, which Debian has in a package.
command_of() { command -v "$1" >/dev/null 2>&1 || PATH=/usr/sbin:/sbin:$PATH command -v "$1" \
    >/dev/null 2>&1 || missing+=("$2"); }

# Wants a file that matches a pattern.
file_of() { compgen -G "$1" >/dev/null || missing+=("$2"); }

command_of cc gcc
command_of pkg-config pkg-config
file_of '/usr/include/stdio.h' libc6-dev
file_of '/usr/lib/llvm-*/lib/libclang*.so*' libclang-dev
pkg-config --exists 'libdpdk >= 22.11' 2>/dev/null || missing+=(libdpdk-dev dpdk-dev)
file_of '/usr/lib/*/librte_net_tap.a' libdpdk-dev

if [[ $purpose == demo || $purpose == test ]]; then
    command_of ip iproute2
    command_of curl curl
    command_of iperf3 iperf3
    command_of ping iputils-ping
    command_of python3 python3
    command_of setpriv util-linux
fi
if [[ $purpose == test ]]; then
    command_of iptables iptables
    command_of conntrack conntrack
    command_of nfct nfct
    command_of ipset ipset
    command_of ethtool ethtool
    command_of sysctl procps
    command_of valgrind valgrind
    command_of tftp tftp-hpa
    command_of in.tftpd tftpd-hpa
    # Programs on the gateway box. The tests start them by hand.
    command_of ssh openssh-client
    command_of sshd openssh-server
    file_of /usr/lib/frr/bgpd frr
    command_of vtysh frr
    command_of dnsmasq dnsmasq-base
    command_of dhclient isc-dhcp-client
    command_of udhcpc udhcpc
fi

# libFuzzer, which the fuzz targets are checked with, is C++.
if [[ $purpose == lint ]]; then
    command_of c++ g++
fi

if [[ $purpose == bench ]]; then
    command_of dpdk-testpmd dpdk-dev
    file_of /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk openvswitch-switch-dpdk
    command_of valgrind valgrind
    command_of setpriv util-linux
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust is missing: install it with rustup (https://rustup.rs), then try again." >&2
    exit 1
fi
[[ ${#missing[@]} -eq 0 ]] && exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
echo "Installing ${missing[*]}"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "There is no apt-get here: install these Debian packages' equivalents yourself." >&2
    exit 1
fi
as_root=()
[[ $(id -u) -eq 0 ]] || as_root=(sudo)
quietly=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)

# Some of them come with a server that would run from now on and from every boot. Debian asks
# policy-rc.d whether it may; if the machine has one of its own, that one decides.
servers=()
for package in "${missing[@]}"; do
    case $package in
        openssh-server) servers+=(ssh) ;;
        frr) servers+=(frr) ;;
        tftpd-hpa) servers+=(tftpd-hpa) ;;
    esac
done
policy=/usr/sbin/policy-rc.d
if [[ ${#servers[@]} -gt 0 && ! -e $policy ]]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
"${quietly[@]}" update </dev/null
"${quietly[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
for server in "${servers[@]}"; do
    [[ ! -d /run/systemd/system ]] || "${as_root[@]}" systemctl stop "$server"
    "${as_root[@]}" update-rc.d "$server" disable >/dev/null
done
