#!/usr/bin/env python3
"""What an instance does beside its gateway, in one of four ways:

    certificates  fetches the secrets; where they have changed, puts all files in place in one step. The gateway sees that.
    report        sends CloudWatch whether the gateway is ready, and how many days the server's certificate has left that is in force.
    logs          sends CloudWatch Logs what the gateway, these services and the first boot have written, again and again.
    lifecycle     tells the group that the gateway is ready; ends the gateway when the group takes the instance away.

Its settings are those of /etc/forebay/instance.env. Whatever fails ends it with an error, and what was there before stays.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

# Tests set these.
CERTIFICATES = Path(os.environ.get("CERTIFICATES", "/etc/forebay/tls"))
ADMIN = os.environ.get("ADMIN", "http://127.0.0.1:9444")
METADATA = os.environ.get("METADATA", "http://169.254.169.254")
POLL_SECONDS = float(os.environ.get("POLL_SECONDS", 5))
# From the group's decision to the moment in which the balancer has stopped sending new connections.
LEAD_SECONDS = float(os.environ.get("LEAD_SECONDS", 30))
LOG_SECONDS = float(os.environ.get("LOG_SECONDS", 15))

LOGGED = ("forebay.service", "forebay-tls.service", "forebay-lifecycle.service", "cloud-final.service")
# Of one call: a MiB with 26 bytes an event, 10,000 events, within a day.
LOG_BYTES, LOG_EVENTS, LOG_SPAN_MS = 1_000_000, 10_000, 23 * 3_600_000
LOG_CHARACTERS_MAX = 50_000


def main():
    os.umask(0o027)
    {"certificates": certificates, "report": report, "logs": logs, "lifecycle": lifecycle}[sys.argv[1]]()


def certificates():
    if os.environ.get("KAFKA_SECRET"):
        kafka()
    files = fetch()
    current = CERTIFICATES / "current"
    if {file.name: file.read_text() for file in current.glob("*")} == files:
        return
    written = write(files)
    link = CERTIFICATES / "next"
    link.unlink(missing_ok=True)
    link.symlink_to(written.name)
    link.replace(current)
    for old in CERTIFICATES.glob("set-*"):
        if old != written:
            shutil.rmtree(old)


def fetch():
    """Name of each file to its text."""
    server = secret("SERVER_SECRET")
    devices = secret("DEVICES_SECRET")
    files = {"server.pem": server["certificate"], "server.key": server["key"], "devices-ca.pem": devices["ca"]}
    return files | ({"devices-crl.pem": devices["crl"]} if "crl" in devices else {})


def write(files):
    """A new folder for root and the group that may read the certificates: the gateway's."""
    folder = Path(tempfile.mkdtemp(dir=CERTIFICATES, prefix="set-"))
    for name, text in files.items():
        (folder / name).write_text(text)
    folder.chmod(0o750)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, group=CERTIFICATES.stat().st_gid)
    return folder


def kafka():
    """The user is a variable that the gateway is started with, in quotes, as systemd reads it; the password is a file that it reads again
    when it has changed."""
    user = secret("KAFKA_SECRET")
    quoted = re.sub(r'(["\\$`])', r"\\\1", user["username"])
    replace(CERTIFICATES.parent / "kafka.env", f'FOREBAY_KAFKA_SASL_USERNAME="{quoted}"\n')
    file = CERTIFICATES / "kafka.password"
    if not file.exists() or file.read_text() != user["password"]:
        replace(file, user["password"], group=CERTIFICATES.stat().st_gid)


def replace(file, text, group=None):
    """In one step; for root alone, or for a group that may read it."""
    beside = file.with_name(f"{file.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    if group is not None:
        shutil.chown(beside, group=group)
        beside.chmod(0o640)
    beside.replace(file)


def secret(variable):
    answer = aws("secretsmanager", "get-secret-value", "--secret-id", os.environ[variable])
    return json.loads(json.loads(answer)["SecretString"])


def report():
    put_metric("Ready", int(is_ready()))
    ends = re.search(r"^forebay_tls_certificate_expiry_timestamp_seconds (\S+)", get(f"{ADMIN}/metrics"), re.M)[1]
    days = (float(ends) - time.time()) / 86400
    put_metric("CertificateDaysLeft", f"{days:.3f}")


def put_metric(name, value):
    aws("cloudwatch", "put-metric-data", "--namespace", "Forebay", "--metric-name", name,
        "--dimensions", f"Gateway={os.environ['GATEWAY']}", "--value", f"{value}")


def logs():
    """What a call has taken is not sent again; what fails is, after systemd has started this anew."""
    group, stream, sent = os.environ["LOG_GROUP"], metadata("instance-id"), Path(os.environ["STATE_DIRECTORY"], "sent")
    name = ("--log-group-name", group, "--log-stream-name", stream)
    aws("logs", "create-log-stream", *name, check=False)  # it may be there
    while True:
        events, cursor, is_last = next_events(sent.read_text() if sent.exists() else None)
        if events:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(events, file)
                file.flush()
                aws("logs", "put-log-events", *name, "--log-events", f"file://{file.name}")
            replace(sent, cursor)
        if is_last:
            time.sleep(LOG_SECONDS)


def next_events(cursor):
    """As many events after the cursor as one call takes, the cursor of the last, and whether these are all that there are."""
    events, size, is_last = [], 0, False
    command = ["journalctl", "--quiet", "--output=json", "--all", "--no-pager", *(f"--unit={unit}" for unit in LOGGED)]
    with subprocess.Popen([*command, *([f"--after-cursor={cursor}"] if cursor else [])], stdout=subprocess.PIPE) as journal:
        for line in journal.stdout:
            entry = json.loads(line)
            event = {"timestamp": int(entry["__REALTIME_TIMESTAMP"]) // 1000, "message": message_of(entry)}
            size += len(event["message"].encode()) + 26
            span = abs(event["timestamp"] - events[0]["timestamp"]) if events else 0
            if size > LOG_BYTES or len(events) == LOG_EVENTS or span > LOG_SPAN_MS:
                break
            events.append(event)
            cursor = entry["__CURSOR"]
        else:
            if journal.wait():
                raise subprocess.CalledProcessError(journal.returncode, command)
            is_last = True
    return sorted(events, key=lambda event: event["timestamp"]), cursor, is_last


def message_of(entry):
    """The journal gives a line that is not UTF-8 as a list of its bytes, and one of several as a list of these."""
    message = entry.get("MESSAGE") or " "
    if isinstance(message, list) and all(isinstance(byte, int) for byte in message):
        message = bytes(message).decode(errors="replace")
    return str(message)[:LOG_CHARACTERS_MAX]


def lifecycle():
    wait_until(is_ready)
    # After a reboot nobody waits for this.
    aws("autoscaling", "complete-lifecycle-action", "--lifecycle-action-result", "CONTINUE", "--lifecycle-hook-name", "ready",
        "--auto-scaling-group-name", os.environ["GATEWAY"], "--instance-id", metadata("instance-id"), check=False)
    wait_until(is_going)
    time.sleep(LEAD_SECONDS)
    subprocess.run(["systemctl", "stop", "forebay.service"], check=True)


def wait_until(condition):
    while not condition():
        time.sleep(POLL_SECONDS)


def is_ready():
    try:
        get(f"{ADMIN}/readyz")
    except OSError:
        return False
    return True


def is_going():
    return metadata("autoscaling/target-lifecycle-state") == "Terminated"


def metadata(item):
    token = get(f"{METADATA}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return get(f"{METADATA}/latest/meta-data/{item}", headers={"X-aws-ec2-metadata-token": token})


def get(url, method="GET", headers={}):
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def aws(*arguments, check=True):
    return subprocess.run(["aws", "--output", "json", *arguments], check=check, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
