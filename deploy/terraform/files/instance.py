#!/usr/bin/env python3
"""What an instance does beside its gateway, in one of three ways:

    certificates  fetches the secrets; where they have changed, puts all files in place in one step. The gateway sees that.
    report        sends CloudWatch how many days the server's certificate has left that is in force.
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


def main():
    os.umask(0o027)
    {"certificates": certificates, "report": report, "lifecycle": lifecycle}[sys.argv[1]]()


def certificates():
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


def secret(variable):
    answer = aws("secretsmanager", "get-secret-value", "--secret-id", os.environ[variable])
    return json.loads(json.loads(answer)["SecretString"])


def report():
    ends = re.search(r"^forebay_tls_certificate_expiry_timestamp_seconds (\S+)", get(f"{ADMIN}/metrics"), re.M)[1]
    days = (float(ends) - time.time()) / 86400
    aws("cloudwatch", "put-metric-data", "--namespace", "Forebay", "--metric-name", "CertificateDaysLeft",
        "--dimensions", f"Gateway={os.environ['GATEWAY']}", "--value", f"{days:.3f}")


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
