"""The servers that are measured: how each one is started, ended, and looked at in /proc."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
STARTING_MAX_S = 20


class Server:
    """One that is measured: how it is started, which protocols it has not."""

    def __init__(self, name, command, environment=None, template=None, lacks=()):
        self.name, self.command, self.template, self.lacks = name, command, template, lacks
        self.environment = environment or {}

    def start(self, places, core):
        """Its process and port, once it takes connections."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        places = places | {"PORT": str(port)}
        if self.template:
            configuration = pathlib.Path(places["DIR"]) / self.template
            configuration.write_text(fill((HERE / self.template).read_text(), places))
            places = places | {"CONFIGURATION": str(configuration)}
        log = open(pathlib.Path(places["DIR"]) / f"{self.name}.log", "w")
        command = ["taskset", "-c", core] + [fill(word, places) for word in self.command]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
        environment |= {name: fill(value, places) for name, value in self.environment.items()}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTING_MAX_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process, port
            except OSError:
                time.sleep(0.05)
        stop(process)
        sys.exit(f"{self.name} does not start:\n" + pathlib.Path(log.name).read_text()[-2000:])


def fill(text, places):
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def forebay(name, program, sink):
    environment = {
        "FOREBAY_LISTEN": "127.0.0.1:@PORT@", "FOREBAY_ADMIN_LISTEN": "127.0.0.1:0", "FOREBAY_WORKERS": "1",
        "FOREBAY_TLS_CERT": "@PKI@/server.pem", "FOREBAY_TLS_KEY": "@PKI@/server.key",
        "FOREBAY_TLS_CLIENT_CA": "@PKI@/ca.pem", "FOREBAY_TLS_MIN_VERSION": "1.3",
        "FOREBAY_ADDRESS_RATE": "0", "FOREBAY_HANDSHAKE_RATE": "0", "FOREBAY_DEVICE_RATE": "0",
        "FOREBAY_DEVICE_BYTE_RATE": "0", "FOREBAY_ADDRESS_CONNECTIONS_MAX": "15000", "FOREBAY_LOG": "warn",
    }
    return Server(name, [str(program), "serve"], environment | sink)


def servers(options):
    program = options.bin / "forebay"
    found = []
    if nginx := shutil.which("nginx"):
        found.append(Server("nginx", [nginx, "-c", "@CONFIGURATION@", "-p", "@DIR@"], template="nginx.conf", lacks=("h3",)))
    found.append(forebay("forebay-null", program, {"FOREBAY_SINK": "null"}))
    found.append(forebay("forebay-file", program, {"FOREBAY_SINK": "file", "FOREBAY_FILE_DIR": "@DIR@/data"}))
    if options.kafka:
        kafka = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": "@KAFKA@"}
        found.append(forebay("forebay-kafka", program, kafka))
        if vector := shutil.which("vector"):
            command = [vector, "--quiet", "--threads", "1", "--config", "@CONFIGURATION@"]
            found.append(Server("vector", command, template="vector.yaml", lacks=("h2", "h3")))
        if fluent_bit := shutil.which("fluent-bit"):
            command = [fluent_bit, "-c", "@CONFIGURATION@"]
            found.append(Server("fluent-bit", command, template="fluent-bit.conf", lacks=("h3",)))
    return [server for server in found if not options.only or server.name in options.only]


def make_certificates(programs, pki):
    """Authority, server and the device that h2load is."""
    for arguments in (["init", "--dir", pki], ["server", "--dir", pki, "--name", "127.0.0.1"], ["device", "--dir", pki, "h2load"]):
        subprocess.run([programs / "forebay", "pki", *arguments], check=True, stdout=subprocess.DEVNULL)


def cpu_seconds(pid):
    """Of a process and its children, user and system."""
    ticks = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended
        if int(stat.parent.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
