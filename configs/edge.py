#!/usr/bin/env python3
"""Writes edge.v4, edge.v6 and edge.ipset beside itself, or into the folder that it is given.

An operator's inventory writes such files: what follows is how such a thing may look. Equal runs
write equal files. There are RULES rules of IPv4.

    base chain   what is the same for all       then, for a tenant's packets
    FORWARD  ->  from-outside, to-outside,  ->  in-64 ... in-70, one for each /16  ->  t0007
                 between, mgmt, dns
"""

import sys
from pathlib import Path

RULES = 10_000
TENANTS = 400
# Tenants of one /16, each with a /22.
PER_BLOCK = 64
BLOCKED = 3_000

HEADER = "# Written by edge.py, which says what is what. See edge.toml.\n"


class Lot:
    """Numbers that look drawn and are the same in each run (an LCG, its upper bits)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, end):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % end

    def of(self, things):
        return things[self.below(len(things))]


class Tenant:
    def __init__(self, number):
        self.number = number
        self.chain = f"t{number:04}"
        self.block = 64 + number // PER_BLOCK
        self.third = number % PER_BLOCK * 4
        self.net = f"10.{self.block}.{self.third}.0/22"
        self.vip = f"198.18.{number // 256}.{number % 256}"
        self.source = f"198.18.{4 + number // 256}.{number % 256}"
        self.public = f"{self.address(0)}/27"
        self.net6 = f"2001:db8:{0x1000 + number:x}::/48"
        self.mark = number + 1

    def host(self, last):
        return f"10.{self.block}.{self.third}.{last}"

    def address(self, last):
        """A public one: 0 to 31."""
        return f"198.19.{self.number // 8}.{self.number % 8 * 32 + last}"

    def host6(self, last):
        return f"2001:db8:{0x1000 + self.number:x}::{last:x}"


def stranger(lot, length):
    """A network of the internet: in none of the bogons, and not ours."""
    while True:
        first = 1 + lot.below(222)
        if first not in (10, 100, 127, 169, 172, 192, 198, 203):
            break
    bits = (first << 24 | lot.below(1 << 24)) >> (32 - length) << (32 - length)
    octets = ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))
    return f"{octets}/{length}"


def service(lot, tenant):
    """One of a tenant's services beyond the usual ones."""
    host = tenant.address(1 + lot.below(30))
    tcp, udp = "-p tcp -m tcp --dport", "-p udp -m udp --dport"
    port = 1024 + lot.below(40_000)
    kind = lot.below(16)
    if kind < 5:
        port = lot.of([80, 443, 8080, 8443, 3306, 5432, 6379, 9200, port])
        return f"-d {host}/32 {tcp} {port} -j ACCEPT"
    if kind < 8:
        return f"-s {stranger(lot, lot.of([22, 24, 24, 28]))} -d {host}/32 {tcp} {port} -j ACCEPT"
    if kind == 8:
        return f"-s {stranger(lot, 32)} -d {host}/32 {tcp} 22 -j ACCEPT"
    if kind < 11:
        return f"-d {host}/32 {udp} {lot.of([123, 443, 500, 1194, 4500, 51820, port])} -j ACCEPT"
    if kind == 11:
        return f"-d {host}/32 {udp} {port}:{port + 99} -j ACCEPT"
    if kind < 14:
        ports = ",".join(str(port + 3 * i) for i in range(2 + lot.below(4)))
        return f"-d {host}/32 -p tcp -m multiport --dports {ports} -j ACCEPT"
    if kind == 14:
        return f"-d {host}/32 -p {lot.of(['esp', 'gre'])} -j ACCEPT"
    return f"-d {tenant.address(16)}/28 {tcp} {port}:{port + 9} -j ACCEPT"


class Table:
    """A table while it is written: base chains with policies, then the user's."""

    def __init__(self, name, bases, users=()):
        self.name, self.bases, self.users, self.rules = name, bases, set(users), []

    def add(self, chain, rule):
        if chain not in self.bases:
            self.users.add(chain)
        self.rules.append(f"-A {chain} {rule}\n")

    def text(self):
        bases = [f":{name} {policy} [0:0]\n" for name, policy in self.bases.items()]
        users = [f":{name} - [0:0]\n" for name in sorted(self.users)]
        return f"*{self.name}\n" + "".join(bases + users + self.rules) + "COMMIT\n"


def blocks(tenants):
    """Each block with the networks of its tenants, inside and public."""
    for block in sorted({tenant.block for tenant in tenants}):
        yield block, (f"10.{block}.0.0/16", f"198.19.{(block - 64) * 8}.0/21")


def accepting(names):
    return dict.fromkeys(names.split(), "ACCEPT")


def raw(v6):
    table = Table("raw", accepting("PREROUTING OUTPUT"))
    six = "6" if v6 else ""
    server = "2001:db8:1fff::53/128" if v6 else "198.51.100.53/32"
    for rule in [
        f"-i up+ -m set --match-set bogons{six} src -j DROP",
        f"-i up+ -m set --match-set blocked{six} src -j DROP",
        # Our own addresses do not come from outside, and nothing else comes from inside.
        f"-i up+ -m set --match-set ours{six} src -j DROP",
        f"-i fabric -m set ! --match-set inside{six} src -j DROP",
        "-i up+ -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP",
        # Questions and answers are one packet each: not worth a conn.
        f"-d {server} -i up+ -p udp -m udp --dport 53 -j CT --notrack",
        f"-s {server} -i fabric -p udp -m udp --sport 53 -j CT --notrack",
    ]:
        table.add("PREROUTING", rule)
    return table


def mangle(tenants, v6):
    table = Table("mangle", accepting("PREROUTING INPUT FORWARD OUTPUT POSTROUTING"))
    table.add("FORWARD", "-o up+ -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss "
              + ("1420" if v6 else "1440"))
    if v6:
        return table
    # A conn's mark is its tenant: conntrack -L -m 8 lists those of tenant 7. What one tenant has
    # published counts as his who calls.
    table.add("FORWARD", "-m conntrack --ctstate NEW -j owner")
    table.add("FORWARD", "-m conntrack --ctstate NEW -j CONNMARK --save-mark")
    for side, chain in [("d", "called"), ("s", "calls")]:
        for block, nets in blocks(tenants):
            for net in nets:
                table.add("owner", f"-{side} {net} -j {chain}-{block}")
    for tenant in tenants:
        for side, chain in [("d", "called"), ("s", "calls")]:
            for net in (tenant.net, tenant.public):
                table.add(f"{chain}-{tenant.block}",
                          f"-{side} {net} -j MARK --set-xmark {tenant.mark:#x}/0xffff")
    return table


def nat(tenants):
    table = Table("nat", accepting("PREROUTING INPUT OUTPUT POSTROUTING"))
    table.add("PREROUTING", "-d 198.18.0.0/22 -j vips")
    for tenant in tenants:
        vip, name = f"-d {tenant.vip}/32", "vips-" + tenant.vip.split(".")[2]
        if tenant.number % 256 == 0:
            table.add("vips", f"-d {tenant.vip.rsplit('.', 1)[0]}.0/24 -g {name}")
        web = f"{tenant.host(10)}-{tenant.host(13)}"
        table.add(name, f"{vip} -p tcp -m multiport --dports 80,443 -j DNAT "
                  f"--to-destination {web} --persistent")
        table.add(name, f"{vip} -p tcp -m tcp --dport 22 -j DNAT --to-destination {tenant.host(5)}")
        if tenant.number % 4 == 0:
            table.add(name, f"{vip} -p tcp -m tcp --dport 25 -j DNAT "
                      f"--to-destination {tenant.host(25)}")
        if tenant.number % 5 == 0:
            table.add(name, f"{vip} -p tcp -m tcp --dport 8443 -j DNAT "
                      f"--to-destination {tenant.host(20)}:443")
    # One tenant who calls what another has published: the answers have to come back by here.
    table.add("POSTROUTING", "-s 10.64.0.0/10 -o fabric -m conntrack --ctstate DNAT -j SNAT "
              "--to-source 10.255.0.1")
    table.add("POSTROUTING", "-s 10.64.0.0/10 -o up+ -j source")
    for block, (inside, _) in blocks(tenants):
        table.add("source", f"-s {inside} -g source-{block}")
    for tenant in tenants:
        table.add(f"source-{tenant.block}", f"-s {tenant.net} -j SNAT --to-source {tenant.source}")
    return table


def filter_base(table, tenants, v6):
    """What is the same for all tenants."""
    six = "6" if v6 else ""
    icmp = "-p ipv6-icmp -m icmp6 --icmpv6-type" if v6 else "-p icmp -m icmp --icmp-type"
    echo = f"{icmp} 128" if v6 else f"{icmp} 8"
    state = "-m conntrack --ctstate"
    reset, closed = "tcp-reset", "icmp6-adm-prohibited" if v6 else "icmp-admin-prohibited"
    peers = [("up1", "2001:db8:ffff:1::1/128"), ("up2", "2001:db8:ffff:2::1/128")] if v6 else [
        ("up1", "192.0.2.1/32"), ("up2", "192.0.2.5/32")]
    table.add("INPUT", f"{state} RELATED,ESTABLISHED -j ACCEPT")
    if v6:
        for kind in (133, 134, 135, 136):
            table.add("INPUT", f"{icmp} {kind} -m hl --hl-eq 255 -j ACCEPT")
    table.add("INPUT", f"{state} INVALID -j DROP")
    table.add("INPUT", f"{echo} -m limit --limit 50/sec --limit-burst 100 -j ACCEPT")
    for port, peer in peers:
        table.add("INPUT", f"-s {peer} -i {port} -p tcp -m tcp --dport 179 -j ACCEPT")
    if not v6:
        table.add("INPUT", "-s 10.254.0.0/24 -i mgmt -p tcp -m tcp --dport 22 -j ACCEPT")
        table.add("INPUT", "-s 10.254.0.0/24 -i mgmt -p udp -m udp --dport 161 -j ACCEPT")
    table.add("FORWARD", f"{state} RELATED,ESTABLISHED -j ACCEPT")
    table.add("FORWARD", f"{state} UNTRACKED -g dns")
    table.add("FORWARD", f"{state} INVALID -j DROP")
    table.add("FORWARD", "-i up+ -j from-outside")
    table.add("FORWARD", "-i fabric -o up+ -j to-outside")
    table.add("FORWARD", "-i fabric -o fabric -j between")
    if not v6:
        table.add("FORWARD", "-s 10.254.0.0/24 -i mgmt -o fabric -p tcp -m tcp --dport 22 -j ACCEPT")
    table.add("FORWARD", "-m limit --limit 5/sec --limit-burst 50 -j NFLOG --nflog-prefix \"edge \" "
              "--nflog-group 1")
    server = "2001:db8:1fff::53/128" if v6 else "198.51.100.53/32"
    table.add("dns", f"-d {server} -p udp -m udp --dport 53 -m hashlimit --hashlimit-upto 200/sec "
              f"--hashlimit-burst 400 --hashlimit-mode srcip --hashlimit-name dns{six} -j ACCEPT")
    table.add("dns", f"-s {server} -p udp -m udp --sport 53 -j ACCEPT")
    table.add("dns", "-j DROP")
    # What one source, and what all together, may ask of one address.
    syn = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m hashlimit"
    table.add("from-outside", f"{syn} --hashlimit-above 100/sec --hashlimit-burst 200 "
              f"--hashlimit-mode srcip --hashlimit-name syn-src{six} -j DROP")
    table.add("from-outside", f"{syn} --hashlimit-above 20000/sec --hashlimit-burst 20000 "
              f"--hashlimit-mode dstip --hashlimit-name syn-dst{six} -j DROP")
    # Who knocks at telnet's door is left standing for an hour.
    table.add("from-outside", f"-m set --match-set scanners{six} src -j DROP")
    table.add("from-outside", f"-p tcp -m tcp --dport 23 -j SET --add-set scanners{six} src")
    table.add("from-outside", "-p tcp -m tcp --dport 23 -j DROP")
    table.add("from-outside", f"{echo} -m limit --limit 1000/sec --limit-burst 2000 -j ACCEPT")
    table.add("from-outside", "-m set --match-set opened" + six + " dst,dst -j ACCEPT")
    if not v6:
        # Inside addresses are no use to those who were not translated.
        table.add("from-outside", "-d 10.0.0.0/8 -m conntrack ! --ctstate DNAT -j DROP")
    table.add("to-outside", f"-m set --match-set quarantined{six} src -j REJECT "
              f"--reject-with {closed}")
    table.add("to-outside", f"-p tcp -m tcp --dport 25 -m set ! --match-set mailers{six} src "
              f"-j REJECT --reject-with {reset}")
    table.add("to-outside", "-p udp -m multiport --dports 137,138,1900,5353 -j DROP")
    table.add("to-outside", "-j ACCEPT")
    # Tenants 0 and 1, 20 and 21, ... trust each other.
    for one, other in zip(tenants[::20], tenants[1::20]):
        ends = (one.net6, other.net6) if v6 else (one.net, other.net)
        table.add("between", f"-s {ends[0]} -d {ends[1]} -j ACCEPT")
        table.add("between", f"-s {ends[1]} -d {ends[0]} -j ACCEPT")
    # What a tenant has opened to everybody is open to the others, too.
    if v6:
        table.add("between", "-j from-outside")
    else:
        table.add("between", f"{state} DNAT -j from-outside")
        table.add("between", "-d 198.19.0.0/18 -j from-outside")
    table.add("between", f"-j REJECT --reject-with {closed}")


def usual(table, tenant):
    """What every tenant has."""
    add = lambda rule: table.add(tenant.chain, rule)
    add(f"-d {tenant.host(8)}/29 -p tcp -m multiport --dports 80,443 -j ACCEPT")
    add(f"-d {tenant.host(5)}/32 -p tcp -m tcp --dport 22 -m set --match-set admins src -j ACCEPT")
    if tenant.number % 4 == 0:
        add(f"-d {tenant.host(25)}/32 -p tcp -m tcp --dport 25 -j ACCEPT")
    if tenant.number % 5 == 0:
        add(f"-d {tenant.host(20)}/32 -p tcp -m tcp --dport 443 -m comment --comment "
            f"\"{tenant.chain} interface\" -j ACCEPT")


def filter_v4(tenants, lot, left):
    """The table filter; `left` rules for it."""
    table = Table("filter", {"INPUT": "DROP", "FORWARD": "DROP", "OUTPUT": "ACCEPT"})
    filter_base(table, tenants, False)
    for block, nets in blocks(tenants):
        for net in nets:
            table.add("from-outside", f"-d {net} -g in-{block}")
    for tenant in tenants:
        for net in (tenant.net, tenant.public):
            table.add(f"in-{tenant.block}", f"-d {net} -g {tenant.chain}")
    own = Table("own", {})
    for tenant in tenants:
        usual(own, tenant)
    spare = left - len(table.rules) - len(own.rules)
    for number, tenant in enumerate(tenants):
        usual(table, tenant)
        # As many for each, and what is left over for the first ones.
        for _ in range(spare // TENANTS + (number < spare % TENANTS)):
            table.add(tenant.chain, service(lot, tenant))
    return table


def filter_v6(tenants):
    table = Table("filter", {"INPUT": "DROP", "FORWARD": "DROP", "OUTPUT": "ACCEPT"})
    filter_base(table, tenants, True)
    for first in range(0, TENANTS, PER_BLOCK):
        block = f"2001:db8:{0x1000 + first:x}::/42"
        table.add("from-outside", f"-d {block} -g in-{64 + first // PER_BLOCK}")
    for tenant in tenants:
        table.add(f"in-{tenant.block}", f"-d {tenant.net6} -g {tenant.chain}")
    for tenant in tenants:
        add = lambda rule: table.add(tenant.chain, rule)
        add(f"-d {tenant.host6(0x10)}/124 -p tcp -m multiport --dports 80,443 -j ACCEPT")
        add(f"-d {tenant.host6(0x10)}/124 -p udp -m udp --dport 443 -j ACCEPT")
        if tenant.number % 4 == 0:
            add(f"-d {tenant.host6(0x25)}/128 -p tcp -m tcp --dport 25 -j ACCEPT")
    return table


def sets(tenants, lot):
    out = [HEADER]

    def create(name, kind, elements, more="", v6=False):
        family = "inet6" if v6 else "inet"
        out.append(f"create {name} {kind} family {family} hashsize 1024 maxelem 65536{more}\n")
        out.extend(f"add {name} {element}\n" for element in elements)

    # The documentation's networks, and the benchmarks', stand for the operator's own here.
    create("bogons", "hash:net", ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8",
                                  "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
                                  "224.0.0.0/3"])
    create("bogons6", "hash:net", ["::/8", "100::/64", "fc00::/7", "fec0::/10", "ff00::/8"], v6=True)
    blocked = {stranger(lot, lot.of([16, 20, 22, 24, 24, 24, 28, 32])) for _ in range(BLOCKED)}
    create("blocked", "hash:net",
           ["100.10.0.0/16", "100.10.20.0/24 nomatch"] + sorted(blocked))
    create("blocked6", "hash:net", [f"2a00:{lot.below(1 << 16):x}:{i + 1:x}::/48"
                                    for i in range(200)], v6=True)
    create("ours", "hash:net", ["10.64.0.0/10", "198.18.0.0/21", "198.19.0.0/18",
                                "198.51.100.0/24"])
    create("ours6", "hash:net", ["2001:db8:1000::/36"], v6=True)
    create("inside", "hash:net", ["10.64.0.0/10", "10.255.0.0/30", "198.19.0.0/18",
                                  "198.51.100.0/24"])
    create("inside6", "hash:net", ["2001:db8:1000::/36", "2001:db8:ffff:3::/64", "fe80::/10"],
           v6=True)
    create("admins", "hash:net", ["100.20.0.0/24"] + [stranger(lot, 28) for _ in range(60)])
    create("mailers", "hash:ip", [t.host(25) for t in tenants[::4]])
    create("mailers6", "hash:ip", [t.host6(0x25) for t in tenants[::4]], v6=True)
    # Ports that tenants opened themselves, without a rule each.
    create("opened", "hash:ip,port", [f"{t.address(30)},{lot.of(['tcp', 'udp'])}:{2000 + i}"
                                      for t in tenants[::2] for i in range(3)])
    create("opened6", "hash:ip,port", [f"{t.host6(0x200)},tcp:2000" for t in tenants[::8]], v6=True)
    create("quarantined", "hash:ip", [tenants[13].host(66), tenants[13].address(6)])
    create("quarantined6", "hash:ip", [], v6=True)
    create("scanners", "hash:ip", [], " timeout 3600")
    create("scanners6", "hash:ip", [], " timeout 3600", v6=True)
    return "".join(out)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    tenants = [Tenant(number) for number in range(TENANTS)]
    lot = Lot(1)
    tables = [raw(False), mangle(tenants, False), nat(tenants)]
    left = RULES - sum(len(table.rules) for table in tables)
    tables.append(filter_v4(tenants, lot, left))
    v4 = HEADER + "".join(table.text() for table in tables)
    v6 = HEADER + "".join(t.text() for t in (raw(True), mangle(tenants, True), filter_v6(tenants)))
    for name, text in [("edge.v4", v4), ("edge.v6", v6), ("edge.ipset", sets(tenants, lot))]:
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
