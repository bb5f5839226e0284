"""The fleet as a first-class thing: what its events cost, and a devices file of a million lines.

Two gateways that differ in one thing run side by side on the server's core and are measured by turns, so that what else the machine
does meets both; the figures are ratios of one to the other."""

import contextlib
import os
import statistics
import subprocess
import sys
import threading

from scenes import burn, wait_until_ready

RULES = 1_000_000
DEVICES = 3000
TURNS = 3


@contextlib.contextmanager
def two_gateways(rig, folder, one, other):
    """Process, port and admin port of each."""
    with contextlib.ExitStack() as stack:
        gateways = []
        for name, environment in (("one", one), ("other", other)):
            own = folder / name
            own.mkdir()
            gateways.append(stack.enter_context(rig.gateway(own, {"FOREBAY_SINK": "null"} | environment)))
            wait_until_ready(gateways[-1][2])
        yield gateways


def by_turns(measure, gateways):
    """The ratio of the first gateway's figure to the second's: the median of so many turns."""
    return statistics.median(measure(gateways[0]) / measure(gateways[1]) for _ in range(TURNS))


def cpu(rig, *loop):
    return lambda gateway: burn(rig, gateway[1], gateway[0], *loop)


def p99(rig, folder, *options):
    def measure(gateway):
        pid, port, _ = gateway
        report = rig.fleet(folder, port, pid, "fleet", "--protocol", "h1", "--devices", DEVICES, "--interval", "1s",
                           "--duration", "10s", *options)
        return report["total"]["latency_us"]["p99"]
    return measure


def events(rig):
    """Fleet events and usage told, beside none told."""
    told = {"FOREBAY_STREAMS": "telemetry,fleet-events", "FOREBAY_EVENTS_STREAM": "fleet-events", "FOREBAY_USAGE_INTERVAL": "1s"}
    with rig.folder() as folder, two_gateways(rig, folder, told, {}) as gateways:
        return {
            "fleet events: CPU a request, H1, 64 connections, to none": by_turns(cpu(rig, 64), gateways),
            "fleet events: CPU of a new connection and POST, full handshake, to none":
                by_turns(cpu(rig, 16, "--reconnect", "full"), gateways),
            f"fleet events: p99 of {DEVICES} devices at {DEVICES}/s, to none": by_turns(p99(rig, folder), gateways),
            f"fleet events: p99 of {DEVICES} devices that come, go and flood, to none":
                by_turns(p99(rig, folder, "--scenario", "restless"), gateways),
        }


def devices_file(rig):
    """A million exact lines, beside an empty file."""
    with rig.folder() as folder:
        full, empty = folder / "full", folder / "empty"
        with open(full, "w") as lines:
            lines.writelines(f"allow load-{number:06}  rate=1000000/1000000\n" for number in range(RULES))
        empty.touch()
        audit = folder / "audit"
        files = ({"FOREBAY_DEVICES_FILE": str(full), "FOREBAY_AUDIT_LOG": str(audit)}, {"FOREBAY_DEVICES_FILE": str(empty)})
        with two_gateways(rig, folder, *files) as gateways:
            (pid, *_), (other, *_) = gateways
            figures = {
                "a million exact lines: CPU to read, s": min(seconds_to_check(rig, full) for _ in range(TURNS)),
                "a million exact lines: memory in force, MiB": memory_mib(pid, "VmRSS") - memory_mib(other, "VmRSS"),
                "a million exact lines: CPU of a new connection and POST, full handshake, to an empty file":
                    by_turns(cpu(rig, 16, "--reconnect", "full"), gateways),
                "a million exact lines: CPU of a new connection and POST, resumed, to an empty file":
                    by_turns(cpu(rig, 16, "--reconnect", "resumed"), gateways),
            }
            figures |= reloads(rig, folder, full, audit, gateways[0])
            figures["a million exact lines: most memory while read anew, MiB"] = memory_mib(pid, "VmHWM") - memory_mib(other, "VmHWM")
            return figures


def reloads(rig, folder, full, audit, gateway):
    """The file is read anew over and over while a fleet sends; by turns with a fleet that is left alone."""
    measure = p99(rig, folder)

    def while_reloading(gateway):
        ends = threading.Event()

        def touch():
            while not ends.wait(0.5):
                os.utime(full)

        touching = threading.Thread(target=touch)
        touching.start()
        try:
            return measure(gateway)
        finally:
            ends.set()
            touching.join()

    ratio = statistics.median(while_reloading(gateway) / measure(gateway) for _ in range(TURNS))
    if audit.read_text().count("devices-reloaded") < TURNS:
        sys.exit("the file was not read anew")
    return {f"a million exact lines: p99 of {DEVICES} devices while they are read anew, to p99 before": ratio}


def seconds_to_check(rig, file):
    """CPU of `forebay devices check`, most of which is reading."""
    before = os.times()
    subprocess.run([rig.programs / "forebay", "devices", "check", file], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def memory_mib(pid, field):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{field}:"))


SCENES = {"events": events, "devices-file": devices_file}
