"""A gateway that answers as it is told, so that a device's conduct after each answer can be seen. It speaks HTTP/1.1 over mutual
TLS and remembers every request."""

import json
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOST = "lost"  # the connection is closed in the place of an answer


@dataclass
class Request:
    at: float
    connection: int
    key: str
    reading: str
    answer: object


class ScriptedServer(ThreadingHTTPServer):
    """`script` has, for some readings, what is answered before 204: a status, a pair with Retry-After, or LOST."""

    daemon_threads = True

    def __init__(self, pki, script):
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pki / "server.pem", pki / "server.key")
        # The handshake is made in the connection's own thread.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.script = {reading: list(answers) for reading, answers in script.items()}
        self.requests, self.connections = [], 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A device that refuses this server's certificate is no fault."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1
        self.connection_number = self.server.connections

    def do_POST(self):
        reading = self.rfile.read(int(self.headers["content-length"])).decode("latin-1")
        answers = self.server.script.get(reading, [])
        answer = answers.pop(0) if answers else 204
        key = self.headers["idempotency-key"]
        self.server.requests.append(Request(time.monotonic(), self.connection_number, key, reading, answer))
        if answer == LOST:
            self.close_connection = True
        else:
            self.reply(*(answer if isinstance(answer, tuple) else (answer, None)))

    def reply(self, status, retry_after):
        body = b"" if status == 204 else json.dumps({"status": status}).encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("retry-after", str(retry_after))
        if body:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
