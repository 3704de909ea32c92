# What the demo tries, and how it judges. Sourced by tests/demo.sh. A step prints one line of
# detail and returns 0 if all went as it should.

# The web server's address of a family, as a host and within a URL.
web_host() { [[ $1 == 4 ]] && echo "$web4" || echo "$web6"; }
web_url() { [[ $1 == 4 ]] && echo "http://$web4" || echo "http://[$web6]"; }

check_configuration() {
    "$binary" check -c "$work/gateway.toml" >"$work/check" || return
    grep -o -m 1 -E '^max.*|.*conns.*' "$work/check" | head -n 1
}

ping_web() {
    local report
    report=$(on "$lan" ping "-$1" -c 4 -i 0.2 -W 2 "$(web_host "$1")") || {
        echo "no answer"
        echo "$report" >&2
        return 1
    }
    sed -n 's/.* \([0-9]* received\).*/\1/p; s/^rtt [^=]*= [^/]*\/\([^/]*\).*/\1/p' <<<"$report" |
        paste -sd ' ' | awk '{ print $1 " of 4 answers, " $3 " ms on average" }'
}

download() {
    local speed
    speed=$(on "$lan" curl -sS --fail --max-time 60 -w '%{stderr}%{speed_download}' \
        "$(web_url "$1")/random" 2>&1 >"$work/received") || {
        echo "curl failed"
        echo "$speed" >&2
        return 1
    }
    sha256sum <"$work/received" | cmp - "$work/checksum" || { echo "damaged on the way"; return 1; }
    rm -f "$work/received"
    awk -v speed="$speed" 'BEGIN { printf "SHA-256 agrees; %.0f Mbit/s\n", speed * 8 / 1e6 }'
}

# iperf FAMILY OPTIONS...: the JSON report of a run of two seconds.
iperf() {
    local family=$1
    shift
    on "$lan" iperf3 --json "-$family" --client "$(web_host "$family")" --time 2 "$@" \
        >"$work/iperf.json"
    # Its exit code says 0 in most cases.
    if [[ ! -s $work/iperf.json ]] || grep '"error"' "$work/iperf.json" >&2; then
        echo "iperf3 failed"
        return 1
    fi
}

# json FILE EXPRESSION: Python's value of the expression, with the file's content as `j`.
json() { python3 -c 'import json,sys; j=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"; }

iperf_tcp() {
    iperf "$1" && json "$work/iperf.json" \
        "'%.0f Mbit/s' % (j['end']['sum_received']['bits_per_second'] / 1e6)"
}

iperf_udp() {
    local lost
    iperf "$1" --udp --bitrate 50M || return
    lost=$(json "$work/iperf.json" "'%.2f' % j['end']['sum']['lost_percent']") || return
    echo "50 Mbit/s offered, $lost % lost"
    awk -v lost="$lost" 'BEGIN { exit !(lost < 10) }'
}

port_forward() {
    local answer
    answer=$(on "$wan" curl -sS --fail --max-time 5 "http://$gateway4:8080/hello") || return
    echo "$gateway4:8080 says \"$answer\""
    [[ $answer == "$(<"$work/client/hello")" ]]
}

# refused URL: the firewall keeps outsiders out. curl's 28 means that nothing ever answered.
refused() {
    on "$wan" curl -sS --max-time 2 -o "$work/received" "$1" 2>"$work/curl"
    local rc=$?
    rm -f "$work/received"
    if [[ $rc -eq 28 ]]; then
        echo "no answer to $1"
    else
        echo "curl ended with $rc where silence was due"
        cat "$work/curl" >&2
        return 1
    fi
}

show_conntrack() {
    printf '\n  %s$ sluicegate conntrack -L%s\n' "$bold" "$plain"
    tool conntrack -L >"$work/table" 2>"$work/footer"
    head -n 12 "$work/table" | sed 's/^/  /'
    local more=$(($(wc -l <"$work/table") - 12))
    [[ $more -le 0 ]] || printf '  … and %d more\n' "$more"
    sed 's/^/  /' "$work/footer"
}

show_drops() {
    printf '\n  %s$ sluicegate stats%s\n' "$bold" "$plain"
    tool stats >"$work/stats" 2>&1
    tool stats --json >"$work/stats.json" 2>/dev/null
    sed 's/^/  /' "$work/stats"
    echo
}

# A conn from the client to the web server whose replies go to the gateway's address.
nat_in_table() {
    local pattern="src=$client4 dst=$web4 .*src=$web4 dst=$gateway4 "
    echo "$(grep -c "$pattern" "$work/table") conns of $client4 behind $gateway4"
    grep -q "$pattern" "$work/table" &&
        grep -q "dst=$gateway4 .*dport=8080 src=$client4 .*sport=80 " "$work/table"
}

drops_counted() {
    local dropped
    dropped=$(json "$work/stats.json" "j['drops']['filter-drop']") || return
    echo "filter-drop: $dropped"
    [[ $dropped -gt 0 ]]
}

balance() {
    json "$work/stats.json" "'{rx} + {generated} = {tx} + {to_host} + {dropped} + {held}'\
.format(**j['totals'])"
    [[ $(json "$work/stats.json" "(lambda t: t['rx'] + t['generated'] == t['tx'] + t['to_host']\
 + t['dropped'] + t['held'])(j['totals'])") == True ]]
}
