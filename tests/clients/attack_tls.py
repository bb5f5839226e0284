"""TLS by tlslite-ng, which says what an honest library would not. Prints a line of JSON: what became of each case, which is
the status of an answer, the alert that ended the handshake (RFC 8446 section 6), or that nothing more came.

attack_tls.py PORT CERT KEY OTHER_KEY: a device's certificate with its key, and the key of somebody else."""

import json
import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import HandshakeType
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert
from tlslite.messages import RecordHeader3

TIMEOUT_SECONDS = 30
REQUEST = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1"


class Client(TLSConnection):
    """Leaves out messages of its own: neither its hash of the handshake nor its peer's has them."""

    left_out = ()

    def _sendMsg(self, message, *arguments, **named):
        if getattr(message, "handshakeType", None) not in self.left_out:
            yield from super()._sendMsg(message, *arguments, **named)


def settings(version, **named):
    # Left alone, it compresses its certificate whether the server asks for that or not.
    named = {"minVersion": version, "maxVersion": version, "certificate_compression_send": [], **named}
    chosen = HandshakeSettings()
    for name, value in named.items():
        setattr(chosen, name, value)
    return chosen


TLS_1_1, TLS_1_2, TLS_1_3 = (3, 2), (3, 3), (3, 4)


def attempt(port, chain, key, settings, left_out=(), record_bytes=None):
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as stream:
        client = Client(stream)
        client.left_out = left_out
        if record_bytes:
            client.recordSize = record_bytes
        try:
            client.handshakeClientCert(chain, key, settings=settings, serverName="localhost", alpn=[b"http/1.1"])
            client.sendall(REQUEST)
            answer = client.recv(4096)
            return answer.split(b" ")[1].decode() if answer else "end"
        except TLSRemoteAlert as alert:
            return f"alert {alert.description}"
        except (TLSAbruptCloseError, ConnectionError):
            return "end"


def overlong_record(port):
    """Of the largest length that its head can say: a hello that is no hello."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as stream:
        stream.sendall(bytes(RecordHeader3().create((3, 1), 22, 0xFFFF).write()))
        return answer_of(stream)


def hello_of_sslv2(port):
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as stream:
        stream.sendall(bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16))
        return answer_of(stream)


def answer_of(stream):
    try:
        record = stream.recv(7)
    except ConnectionError:
        return "end"
    return f"alert {record[6]}" if record[:1] == b"\x15" else "end" if not record else record.hex()


def main(port, cert, key, other_key):
    chain = X509CertChain()
    chain.parsePemList(open(cert).read())
    own, other = (parsePEMKey(open(file).read(), private=True) for file in (key, other_key))
    certificate, verify = HandshakeType.certificate, HandshakeType.certificate_verify
    outcomes = {}
    for name, version in [("1.2", TLS_1_2), ("1.3", TLS_1_3)]:
        chosen = settings(version)
        outcomes[f"{name}, honest"] = attempt(port, chain, own, chosen)
        outcomes[f"{name}, records of a byte"] = attempt(port, chain, own, chosen, record_bytes=1)
        outcomes[f"{name}, another's certificate"] = attempt(port, chain, other, chosen)
        outcomes[f"{name}, no certificate"] = attempt(port, None, None, chosen)
        outcomes[f"{name}, no proof"] = attempt(port, chain, own, chosen, [verify])
        outcomes[f"{name}, neither"] = attempt(port, chain, own, chosen, [certificate, verify])
    compressing = settings(TLS_1_3, certificate_compression_send=["zlib"])
    outcomes["1.3, compressed certificate"] = attempt(port, chain, own, compressing)
    outcomes["1.1"] = attempt(port, chain, own, settings(TLS_1_1))
    outcomes["1.2, no forward secrecy"] = attempt(port, chain, own, settings(TLS_1_2, keyExchangeNames=["rsa"]))
    outcomes["1.2, CBC"] = attempt(port, chain, own, settings(TLS_1_2, cipherNames=["aes128"]))
    outcomes["overlong record"] = overlong_record(port)
    outcomes["SSLv2"] = hello_of_sslv2(port)
    print(json.dumps(outcomes))


main(int(sys.argv[1]), *sys.argv[2:])
