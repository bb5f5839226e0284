"""First packets of QUIC, sent from raw sockets by clients that never answer. Prints a line of JSON.

attack_quic.py PORT CLIENTS: each of so many clients sends its first datagram from an address of its own socket, and takes
what comes back until nothing more does. → sent and received bytes of the client that got most, and how many were told to
retry (RFC 9000 section 17.2.5)."""

import json
import select
import socket
import sys
import time

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

# Longer than the first retransmissions of a server that hears nothing.
SILENCE_SECONDS = 1.5
ALL_SECONDS = 8


def first_datagram():
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost"))
    client.connect(("127.0.0.1", 1), now=0)
    return client.datagrams_to_send(now=0)[0][0]


def is_retry(datagram):
    long_header_and_type = datagram[0] & 0b1011_0000
    return long_header_and_type == 0b1011_0000


def main(port, clients):
    sockets = {}
    for _ in range(clients):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.66", 0))
        sock.connect(("127.0.0.1", port))
        datagram = first_datagram()
        sockets[sock] = {"sent": len(datagram), "received": 0, "retry": False}
        sock.send(datagram)
    until = time.monotonic() + ALL_SECONDS
    heard = time.monotonic()
    while time.monotonic() < until and time.monotonic() - heard < SILENCE_SECONDS:
        readable, _, _ = select.select(list(sockets), [], [], 0.1)
        for sock in readable:
            try:
                datagram = sock.recv(65536)
            except ConnectionRefusedError:
                # The gateway has gone meanwhile.
                continue
            sockets[sock]["received"] += len(datagram)
            sockets[sock]["retry"] |= is_retry(datagram)
            heard = time.monotonic()
    most = max(sockets.values(), key=lambda client: client["received"])
    print(json.dumps({**most, "retries": sum(client["retry"] for client in sockets.values())}))


main(int(sys.argv[1]), int(sys.argv[2]))
