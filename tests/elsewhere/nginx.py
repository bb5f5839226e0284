#!/usr/bin/env python3
"""What becomes of a stolen key and of a slow body behind nginx, and behind Forebay. Not a test: it shows why some of ours exist.

tests/elsewhere/nginx.py FOREBAY: the program, built. nginx has to be installed (Debian's package `nginx-light` will do). Both are given the
same certificates, the same list and the same time-out for bodies. Prints a table in Markdown; takes half a minute."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

BODY_TIMEOUT_SECONDS = 2
# Forebay's promise for a changed list.
IN_FORCE_SECONDS = 5
SLOW_SECONDS = 12

NGINX = """
daemon off; error_log {dir}/error.log; pid {dir}/nginx.pid;
events {{ }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {dir}/pki/server.pem; ssl_certificate_key {dir}/pki/server.key;
    ssl_client_certificate {dir}/pki/ca.pem; ssl_verify_client on; ssl_crl {dir}/pki/crl.pem;
    ssl_session_cache shared:sessions:1m; ssl_session_tickets off; client_body_timeout {timeout}s;
    location / {{ proxy_pass http://127.0.0.1:{behind}; }}
  }}
  server {{ listen 127.0.0.1:{behind}; location / {{ return 204; }} }}
}}
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    def __init__(self, folder, program):
        self.dir, self.program, self.port = folder, program, free_port()
        self.pki("init")
        self.pki("server", "--name", "localhost")
        for device in ("stolen", "slow"):
            self.pki("device", device)

    def pki(self, command, *arguments):
        subprocess.run([self.program, "pki", command, *arguments, "--dir", self.dir / "pki"], check=True, stdout=subprocess.DEVNULL)

    def context(self, device, version):
        context = ssl.create_default_context(cafile=self.dir / "pki/ca.pem")
        context.load_cert_chain(self.dir / f"pki/devices/{device}.pem", self.dir / f"pki/devices/{device}.key")
        context.minimum_version = context.maximum_version = version
        return context

    def connect(self, context, session=None):
        sock = socket.create_connection(("127.0.0.1", self.port), 30)
        return context.wrap_socket(sock, server_hostname="localhost", session=session)

    def ask(self, stream):
        """The status, or what there is instead."""
        try:
            stream.sendall(b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
            answer = stream.recv(4096)
            return answer.split(b" ")[1].decode() if answer else "closed"
        except ssl.SSLError as error:
            return error.reason.lower().replace("_", " ")
        except OSError:
            return "closed"

    def visit(self, context, session=None):
        try:
            with self.connect(context, session) as stream:
                assert session is None or stream.session_reused
                return self.ask(stream)
        except ssl.SSLError as error:
            return error.reason.lower().replace("_", " ")

    @contextlib.contextmanager
    def running(self):
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.variables())
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                    break
                assert self.process.poll() is None, (self.dir / "log").read_text()
                time.sleep(0.05)
            yield
        finally:
            self.process.terminate()
            self.process.wait()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)
        time.sleep(1)


class Nginx(Server):
    def command(self):
        config = self.dir / "nginx.conf"
        config.write_text(NGINX.format(dir=self.dir, port=self.port, behind=free_port(), timeout=BODY_TIMEOUT_SECONDS))
        return ["nginx", "-p", self.dir, "-c", config]

    def variables(self):
        return None


class Forebay(Server):
    def command(self):
        return [self.program, "serve"]

    def variables(self):
        pki = self.dir / "pki"
        return {
            "FOREBAY_LISTEN": f"127.0.0.1:{self.port}",
            "FOREBAY_ADMIN_LISTEN": "127.0.0.1:0",
            "FOREBAY_SINK": "null",
            "FOREBAY_TLS_CERT": str(pki / "server.pem"),
            "FOREBAY_TLS_KEY": str(pki / "server.key"),
            "FOREBAY_TLS_CLIENT_CA": str(pki / "ca.pem"),
            "FOREBAY_TLS_CRL": str(pki / "crl.pem"),
            "FOREBAY_BODY_TIMEOUT": f"{BODY_TIMEOUT_SECONDS}s",
        }


def drip(server):
    """A body of a byte a second."""
    with server.connect(server.context("slow", ssl.TLSVersion.TLSv1_3)) as stream:
        stream.sendall(b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        stream.settimeout(1)
        started = time.monotonic()
        while time.monotonic() - started < SLOW_SECONDS:
            stream.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                return stream.recv(4096).split(b" ")[1].decode()
        return f"goes on after {SLOW_SECONDS} s"


def outcomes(server):
    versions = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
    with server.running():
        contexts = {name: server.context("stolen", version) for name, version in versions.items()}
        live = {name: server.connect(context) for name, context in contexts.items()}
        before = {name: server.ask(stream) for name, stream in live.items()}
        assert set(before.values()) == {"204"}, before
        sessions = {name: stream.session for name, stream in live.items()}
        server.pki("revoke", "stolen")
        time.sleep(IN_FORCE_SECONDS)
        yield f"revoked: live connection after {IN_FORCE_SECONDS} s", server.ask(live["TLS 1.3"])
        yield f"revoked: new connection after {IN_FORCE_SECONDS} s", server.visit(contexts["TLS 1.3"])
        server.reload()
        yield "revoked: new connection after SIGHUP", server.visit(contexts["TLS 1.3"])
        for name in versions:
            yield f"revoked: session of {name} resumed after SIGHUP", server.visit(contexts[name], sessions[name])
        yield f"a byte a second of a body, {BODY_TIMEOUT_SECONDS} s allowed", drip(server)


def main(program):
    columns = []
    for kind in (Nginx, Forebay):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="elsewhere-"))
        # nginx begun by root serves as nobody.
        os.chmod(folder, 0o755)
        try:
            columns.append(dict(outcomes(kind(folder, pathlib.Path(program).resolve()))))
        finally:
            shutil.rmtree(folder)
    print("| | nginx | Forebay |\n|---|---|---|")
    for name, elsewhere in columns[0].items():
        print(f"| {name} | {elsewhere} | {columns[1][name]} |")


main(sys.argv[1])
