#!/usr/bin/env bash
# The demo: a home gateway between two network namespaces, with real clients on both sides.
#
# The gateway runs configs/home-gateway.toml with nothing changed but device names, in a network
# namespace of its own; DPDK makes two taps there and each is moved to the host it belongs to. No
# interface, route or setting of this machine is touched. Names contain this script's process id,
# so several demos may run at once, and everything is taken away again at the end, also after a
# failure or an interrupt.
#
#   tests/demo.sh [BINARY]        as root; BINARY is target/release/sluicegate unless given
#   DEMO_WORKERS=2 tests/demo.sh  with that many workers
set -uo pipefail
exec 3>&1
set -m # a process group for each step, so that an interrupt ends all of it

root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "${1:-$root/target/release/sluicegate}")
PATH=$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C

if [[ $(id -u) -ne 0 ]]; then
    echo "The demo makes network namespaces and needs root for that: asking sudo."
    exec sudo -- "$0" "$binary"
fi

tag=sgdemo$$
lan=$tag-lan gw=$tag-gw wan=$tag-wan # namespaces
lan_tap=sgl$$ wan_tap=sgw$$
client4=192.168.10.20 client6=fd00:10::20
gateway4=203.0.113.1 gateway6=2001:db8:20::1
web4=198.51.100.7 web6=2001:db8:7::7
megabytes=100
work=
gateway_pid=
made_tun=
groups=() # process groups started here
titles=() results=() details=()

source "$root/tests/demo/screen.sh"
source "$root/tests/demo/lab.sh"
source "$root/tests/demo/steps.sh"

trap clean_up EXIT
trap 'interrupted INT 130' INT
trap 'interrupted TERM 143' TERM
trap 'interrupted HUP 129' HUP

work=$(mktemp -d "${TMPDIR:-/tmp}/$tag.XXXXXX") || exit
log=$work/log out=$work/step
headline
step "prepare namespaces and data"          prepare
step "check the configuration"              check_configuration
step "start the gateway"                    start_gateway
if passed; then
    chapter "Out through MASQUERADE, back through conntrack"
    step "ping, IPv4"                       ping_web 4
    step "ping, IPv6"                       ping_web 6
    step "download ${megabytes} MB, IPv4"   download 4
    step "download ${megabytes} MB, IPv6"   download 6
    step "iperf3 TCP, IPv4"                 iperf_tcp 4
    step "iperf3 TCP, IPv6"                 iperf_tcp 6
    step "iperf3 UDP, IPv4"                 iperf_udp 4
    step "iperf3 UDP, IPv6"                 iperf_udp 6
    chapter "From outside"
    step "port forward (DNAT) to the client" port_forward
    step "uninvited to the client, IPv4"    refused "http://$client4/hello"
    step "uninvited to the client, IPv6"    refused "http://[$client6]/hello"
    step "uninvited to the gateway"         refused "http://$gateway4:22/"
    chapter "What the gateway says about it"
    show_conntrack
    show_drops
    step "NAT is in the conntrack table"    nat_in_table
    step "refused packets are counted"      drops_counted
    step "every packet is accounted for"    balance
    step "stop on SIGTERM"                  stop_gateway
fi
clean_up
step "nothing is left behind"               nothing_left
summary
