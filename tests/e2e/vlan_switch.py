"""A switch with one trunk and access ports: vlan_switch.py TRUNK ID=PORT...

Frames of an access port leave by the trunk with its 802.1Q tag, frames of the trunk go without it to
the access port of their id. Ends when its standard input does. Says "switching" when it works.
"""
import select
import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
ETH_P_ALL, VLAN_VALID, SO_RCVBUFFORCE = 3, 0x10, 33
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
AUXDATA = struct.Struct("IIIHHHH")


def plug(name):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    port.bind((name, 0))
    port.setblocking(False)
    return port


def receive(port):
    """Bytes without the tag, which the kernel takes off, and the VLAN id; None without a tag."""
    data, ancillary, _, _ = port.recvmsg(65536, socket.CMSG_SPACE(AUXDATA.size))
    for level, kind, said in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = AUXDATA.unpack(said)
            if status & VLAN_VALID and tpid == 0x8100:
                return data, tci & 0xFFF
    return data, None


trunk = plug(sys.argv[1])
access = {int(vlan): plug(name) for vlan, name in (word.split("=") for word in sys.argv[2:])}
ids = {port: vlan for vlan, port in access.items()}
print("switching", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, trunk, *ids], [], [])
    if sys.stdin in ready:
        break
    for port in ready:
        try:
            for _ in range(64):
                data, vlan = receive(port)
                if port is trunk and vlan in access:
                    access[vlan].send(data)
                elif port is not trunk and vlan is None:
                    trunk.send(data[:12] + struct.pack("!HH", 0x8100, ids[port]) + data[12:])
        except OSError:
            # Nothing left, no room, or a wire that is not up yet: a switch drops.
            pass
