"""A Kafka cluster of real brokers on free ports, each behind a proxy if its answers are to be delayed. Needs Java and Kafka's jars."""

import pathlib
import socket
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
STARTING_MAX_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One broker; the first one is the controller too."""

    def __init__(self, number, folder, lib, controller, is_proxied):
        self.number, self.folder, self.lib = number, folder / f"broker-{number}", lib
        self.port = free_port()
        self.public = free_port() if is_proxied else self.port
        self.folder.mkdir()
        roles = "broker,controller" if number == 1 else "broker"
        own = f",CONTROLLER://{controller}" if number == 1 else ""
        settings = {
            "process.roles": roles, "node.id": number, "log.dirs": self.folder / "log",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}{own}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.public}",
            "controller.listener.names": "CONTROLLER", "controller.quorum.voters": f"1@{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "auto.create.topics.enable": "false", "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1, "share.coordinator.state.topic.replication.factor": 1,
            "broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500,
        }
        (self.folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [sys.executable, HERE / "delay.py", str(self.public), str(self.port), "0"]
        self.proxy = subprocess.Popen(command, stdin=subprocess.PIPE, text=True) if is_proxied else None
        self.tool("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.folder / "server.properties")
        with open(self.folder / "kafka.log", "w") as log:
            command = [*self.java(), "kafka.Kafka", self.folder / "server.properties"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def java(self):
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{self.lib}/*"]

    def tool(self, main_class, *arguments):
        done = subprocess.run([*self.java(), main_class, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{main_class}: {done.stdout}{done.stderr}")

    def order(self, line):
        self.proxy.stdin.write(f"{line}\n")
        self.proxy.stdin.flush()

    def stop(self):
        self.process.kill()
        self.process.wait()
        if self.proxy:
            self.proxy.stdin.close()
            self.proxy.wait()


class Cluster:
    """The brokers. A proxy costs time of its own on their core: they have one only where something is to be ordered of it."""

    def __init__(self, folder, lib, nodes=1, is_proxied=False):
        controller = f"127.0.0.1:{free_port()}"
        self.nodes = [Node(number, folder, lib, controller, is_proxied) for number in range(1, nodes + 1)]
        self.address = f"127.0.0.1:{self.nodes[0].public}"
        for node in self.nodes:
            wait_for(node.port)

    def topic(self, name, partitions, on_last=()):
        """A topic without replicas on the first broker; the partitions `on_last` are on the last one."""
        last = len(self.nodes)
        places = [last if partition in on_last else 1 for partition in range(partitions)]
        self.nodes[0].tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", f"127.0.0.1:{self.nodes[0].port}", "--create",
                           "--topic", name, "--replica-assignment", ",".join(map(str, places)))

    def records_per_request(self, topic):
        """Of all partitions: a producer's request leaves one batch in the log of each partition that it is for."""
        records = batches = 0
        for node in self.nodes:
            for segment in node.folder.glob(f"log/{topic}-*/*.log"):
                for count in batch_sizes(segment.read_bytes()):
                    records, batches = records + count, batches + 1
        return records / batches if batches else None

    def delay(self, milliseconds):
        for node in self.nodes:
            node.order(milliseconds)

    def stop(self):
        for node in reversed(self.nodes):
            node.stop()


def batch_sizes(log):
    """The record counts of a log's batches (message format 2): an offset, a length, and the count at the end of a batch's head."""
    at, head_bytes = 0, 61
    while at + head_bytes <= len(log):
        length, count = struct.unpack_from(">i", log, at + 8)[0], struct.unpack_from(">i", log, at + 57)[0]
        if length <= 0:
            return  # room that is preallocated
        yield count
        at += 12 + length


def wait_for(port):
    deadline = time.monotonic() + STARTING_MAX_S
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"no broker at port {port} after {STARTING_MAX_S} s")


def partition(key, partitions):
    """Where Kafka's producers put a key: murmur2, as org.apache.kafka.common.utils.Utils has it."""
    mix, mask = 0x5BD1E995, 0xFFFFFFFF
    found = (0x9747B28C ^ len(key)) & mask
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at:at + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        found = (found * mix & mask) ^ word
    if rest := key[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * mix & mask
    found = (found ^ found >> 13) * mix & mask
    return ((found ^ found >> 15) & 0x7FFFFFFF) % partitions
