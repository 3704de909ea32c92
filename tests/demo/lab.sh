# The demo's machinery: namespaces, processes, and taking them away. Sourced by tests/demo.sh.

# Steps that change variables of the script and so cannot run in a child.
declare -A runs_here=([prepare]=1 [start_gateway]=1 [stop_gateway]=1 [nothing_left]=1)

# inside NAMESPACE COMMAND...: replaces the shell by the command, in that namespace. It is told to
# end should this script be killed without a chance to clean up.
inside() {
    local namespace=$1
    shift
    exec setpriv --pdeathsig TERM nsenter --net="/run/netns/$namespace" -- "$@"
}

# background NAMESPACE LOG COMMAND...: starts a process that lives until clean_up.
background() {
    local namespace=$1 file=$2
    shift 2
    (inside "$namespace" "$@") >"$work/$file.out" 2>"$work/$file.err" </dev/null &
    groups+=($!)
}

on() { (inside "$@"); }

tool() { "$binary" --socket "$work/socket" "$@"; }

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local tenths=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

prepare() {
    sweep
    if [[ ! -c /dev/net/tun ]]; then
        mkdir -p /dev/net && mknod /dev/net/tun c 10 200 && made_tun=1 || {
            echo "/dev/net/tun is missing and cannot be made" >&2
            return 1
        }
    fi
    local namespace
    for namespace in "$lan" "$gw" "$wan"; do
        ip netns add "$namespace" 2>"$work/netns" || {
            echo "cannot make a network namespace: $(<"$work/netns")" >&2
            return 1
        }
        ip -n "$namespace" link set lo up || return
    done
    mkdir "$work/web" "$work/client"
    head -c "$((megabytes * 1000000))" /dev/urandom >"$work/web/random" || return
    sha256sum <"$work/web/random" >"$work/checksum" || return
    echo "hello from the client's own server" >"$work/client/hello"
    write_configuration || return
    echo "3 namespaces, $megabytes MB of random bytes"
}

# What demos left that were killed outright: names carry the process id.
sweep() {
    local path
    for path in /run/netns/sgdemo* "${TMPDIR:-/tmp}"/sgdemo* /run/dpdk/sgdemo*; do
        [[ $path =~ /sgdemo([0-9]+)[^/]*$ && ! -d /proc/${BASH_REMATCH[1]} ]] || continue
        if [[ $path == /run/netns/* ]]; then
            ip netns del "${path##*/}" 2>/dev/null
        else
            rm -rf "$path"
        fi
    done
    return 0
}

# configs/home-gateway.toml, with this run's device and file names.
write_configuration() {
    local cpus first idle=poll workers= n
    mapfile -t cpus < <(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status | tr ',' '\n' |
        while IFS=- read -r from to; do seq "$from" "${to:-$from}"; done)
    first=${cpus[0]}
    # From the last CPU down, and round again.
    for ((n = 0; n < ${DEMO_WORKERS:-1}; n++)); do
        workers+=${workers:+, }${cpus[${#cpus[@]} - 1 - n % ${#cpus[@]}]}
    done
    [[ $(nproc) -ge 4 ]] || idle=sleep # leave CPUs to the clients
    cp "$root"/configs/home-gateway.v[46] "$work/" || return
    sed -e "s/iface=sg-lan/iface=$lan_tap/" -e "s/iface=sg-wan/iface=$wan_tap/" \
        -e "s/^\[eal\]/&\ncontrol_core = $first\nworker_cores = [$workers]\nidle = \"$idle\"\
\nmemory_mb = 256\nhugepages = false\nfile_prefix = \"$tag\"/" \
        "$root/configs/home-gateway.toml" >"$work/gateway.toml" || return
    printf '\n[control]\nsocket = "%s"\n' "$work/socket" >>"$work/gateway.toml"
}

# host NAMESPACE TAP IPV4 IPV6 GATEWAY4 GATEWAY6: a host behind a tap.
host() {
    ip -n "$gw" link set "$2" netns "$1" &&
        ip -n "$1" link set "$2" up &&
        ip -n "$1" address add "$3" dev "$2" &&
        ip -n "$1" address add "$4" dev "$2" nodad &&
        if [[ ${5:-} ]]; then
            ip -n "$1" route add default via "$5" && ip -n "$1" route add default via "$6"
        fi
}

start_gateway() {
    local before=$EPOCHREALTIME pid took
    background "$gw" gateway "$binary" run -c "$work/gateway.toml"
    pid=${groups[-1]} gateway_pid=$pid
    until grep -qx ready "$work/gateway.out"; do
        if [[ ! -d /proc/$pid ]] || ((${EPOCHREALTIME%.*} - ${before%.*} > 60)); then
            echo "no line 'ready' on its stdout"
            cat "$work/gateway.err" >&2
            return 1
        fi
        sleep 0.05
    done
    took=$(((${EPOCHREALTIME/./} - ${before/./}) / 1000))
    host "$lan" "$lan_tap" "$client4/24" "$client6/64" 192.168.10.1 fd00:10::1 || return
    host "$wan" "$wan_tap" 203.0.113.254/24 2001:db8:20::fe/64 || return
    ip -n "$wan" address add "$web4/32" dev lo && ip -n "$wan" address add "$web6/128" dev lo ||
        return
    # The outside knows the way in: it is the firewall that must keep it out.
    ip -n "$wan" route add 192.168.10.0/24 via "$gateway4" || return
    ip -n "$wan" route add fd00:10::/64 via "$gateway6" || return
    background "$wan" web python3 -m http.server --bind :: --directory "$work/web" 80
    background "$lan" client python3 -m http.server --bind :: --directory "$work/client" 80
    background "$wan" iperf4 iperf3 --server --bind "$web4"
    background "$wan" iperf6 iperf3 --server --bind "$web6"
    wait_for 10 on "$wan" curl -sf --max-time 2 -o "$work/hello" "http://$web4/" &&
        wait_for 10 on "$lan" curl -sf --max-time 2 -o "$work/hello" "http://$client4/hello" || {
        echo "a server did not start"
        cat "$work"/{web,client,iperf4,iperf6}.err >&2
        return 1
    }
    echo "ready after $took ms, without hugepages, as process $pid"
}

stop_gateway() {
    kill -TERM "$gateway_pid" || return
    local rc tenths=100
    while [[ -d /proc/$gateway_pid && $tenths -gt 0 ]] && ! gateway_is_gone; do
        sleep 0.1
        tenths=$((tenths - 1))
    done
    gateway_is_gone || { echo "it still runs 10 s after SIGTERM"; return 1; }
    wait "$gateway_pid"
    rc=$? gateway_pid=
    [[ $rc -eq 0 ]] || { echo "exit code $rc"; cat "$work/gateway.err" >&2; return 1; }
    echo "exit code 0"
}

# True once the gateway ended, whether or not it was waited for.
gateway_is_gone() { ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$gateway_pid/status" 2>/dev/null; }

# Ends everything this script started and removes everything it made. May be called twice.
clean_up() {
    local group namespace
    trap '' INT TERM HUP
    disown -a # no word about each of them
    for group in "${groups[@]}"; do
        kill -TERM -- "-$group" 2>/dev/null
    done
    for group in "${groups[@]}"; do
        wait_for 5 group_is_gone "$group" || kill -KILL -- "-$group" 2>/dev/null
    done
    groups=()
    for namespace in "$lan" "$gw" "$wan"; do
        [[ -e /run/netns/$namespace ]] && ip netns del "$namespace"
    done
    rm -rf "/run/dpdk/$tag"
    [[ $made_tun ]] && rm -f /dev/net/tun && made_tun=
    [[ $work ]] && rm -rf "$work"
    log=/dev/null out=/dev/null
}

group_is_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

nothing_left() {
    local left
    left=$(compgen -G "/run/netns/$tag-*"; compgen -G "/run/dpdk/$tag*"
        compgen -G "${TMPDIR:-/tmp}/$tag.*"; compgen -G "/sys/class/net/sg[lw]$$")
    [[ -z $left ]] || { printf '\n      %s\n' "$left" >&3; return 1; }
}

interrupted() {
    printf '\nInterrupted (SIG%s): cleaning up.\n' "$1" >&3
    clean_up
    trap - EXIT
    exit "$2"
}
