# What the demo shows: headline, steps as they happen, the summary. Sourced by tests/demo.sh.

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' cyan='' plain=''
fi

headline() {
    cat <<TEXT

${bold}Sluicegate${plain}: nf_conntrack, NAT and iptables on DPDK. A home gateway, live:

  ${cyan}client${plain}                           ${cyan}gateway${plain}                          ${cyan}web server${plain}
  192.168.10.20 ── lan  192.168.10.1 │ 203.0.113.1      wan ── 198.51.100.7
  fd00:10::20           fd00:10::1   │ 2001:db8:20::1          2001:db8:7::7

  Its rules are plain iptables-save text: ${bold}configs/home-gateway.v4${plain} and ${bold}.v6${plain}
TEXT
}

chapter() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

# step TITLE FUNCTION [ARGUMENT...]: runs the function in a process group of its own. What it prints
# is the detail shown beside the title; what it says on standard error is shown if it fails.
step() {
    local title=$1 result detail
    shift
    printf '  %-36s' "$title"
    if [[ ${runs_here[$1]:-} ]]; then
        "$@" >"$out" 2>"$log" </dev/null
        result=$?
    else
        ("$@") >"$out" 2>"$log" </dev/null &
        groups+=($!)
        wait $!
        result=$?
        unset 'groups[-1]'
    fi
    detail=$(head -n 1 "$out")
    if [[ $result -eq 0 ]]; then
        printf '%sPASS%s  %s\n' "$green" "$plain" "$detail"
        results+=(PASS)
    else
        printf '%sFAIL%s  %s\n' "$red" "$plain" "$detail"
        tail -n 12 "$log" | sed 's/^/      /'
        results+=(FAIL)
    fi
    titles+=("$title") details+=("$detail")
}

# True if the last step passed.
passed() { [[ ${results[-1]} == PASS ]]; }

# The last thing the demo prints; its status is the demo's.
summary() {
    local i failed=0 colour
    chapter "Summary"
    for i in "${!titles[@]}"; do
        colour=$green
        [[ ${results[i]} == PASS ]] || { colour=$red failed=$((failed + 1)); }
        printf '  %s%s%s  %-36s %s%s%s\n' "$colour" "${results[i]}" "$plain" "${titles[i]}" \
            "$dim" "${details[i]}" "$plain"
    done
    if [[ $failed -eq 0 ]]; then
        printf '\n%sPASS%s: all %d steps.' "$bold$green" "$plain" "${#titles[@]}"
        printf ' Next: README.md, docs/operations.md, configs/reference.toml\n'
    else
        printf '\n%sFAIL%s: %d of %d steps.\n' "$bold$red" "$plain" "$failed" "${#titles[@]}"
    fi
    exit $((failed != 0))
}
