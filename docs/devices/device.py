#!/usr/bin/env python3
"""Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.

    device.py https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings

The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
are wrong.
"""

import http.client
import random
import ssl
import sys
import time
from urllib.parse import urlsplit

SAFE = 204
AGAIN = {408, 429, 503, 504}  # as is no answer at all: the same reading, under the same key
STOP = {403, 404, 405, 421}  # the certificate or the address is wrong, for the next reading too
ANSWER_TIMEOUT = 15
WAIT_MIN, WAIT_MAX = 1, 300
BOOT_MAX = 50  # a key has 64 at most


def main():
    if len(sys.argv) != 6 or len(sys.argv[5]) > BOOT_MAX:
        fail("usage: device.py URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most")
    url, ca, certificate, key, boot = sys.argv[1:]
    try:
        connection = connect(urlsplit(url), ca, certificate, key)
    except OSError as error:
        fail(f"{ca}, {certificate} or {key} cannot be used: {error}")
    all_safe = True
    for sequence, line in enumerate(sys.stdin.buffer, start=1):
        name = f"{boot}-{sequence:06}"
        status = deliver(connection, name, line.rstrip(b"\n"))
        if status != SAFE:
            all_safe = False
            print(f"{name}: refused, {status}", file=sys.stderr)
        if status in STOP:
            break
    sys.exit(0 if all_safe else 1)


def fail(why):
    print(why, file=sys.stderr)
    sys.exit(2)


def connect(address, ca, certificate, key):
    """It connects with the first request, stays connected, and connects anew after a close."""
    tls = ssl.create_default_context(cafile=ca)  # checks the server's chain, dates and name
    tls.load_cert_chain(certificate, key)
    return http.client.HTTPSConnection(address.hostname, address.port, context=tls, timeout=ANSWER_TIMEOUT)


def deliver(connection, name, reading):
    """Sends a reading until the answer is final, and returns that."""
    failures = 0
    while True:
        status, retry_after = post(connection, name, reading)
        if status and status not in AGAIN:
            return status
        wait = max(retry_after, backoff(failures))
        print(f"{name}: {status or 'no answer'}, again in {wait:.1f} s", file=sys.stderr)
        time.sleep(wait)
        failures += 1


def post(connection, name, reading):
    """The status, or None where no answer came; and the seconds of Retry-After."""
    fields = {"content-type": "application/json", "idempotency-key": name}
    try:
        connection.request("POST", "/v1/telemetry", reading, fields)
        answer = connection.getresponse()
        answer.read()  # to the end, or the connection cannot be used again
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        print(f"{name}: {error}", file=sys.stderr)
        return None, 0
    retry_after = answer.headers.get("retry-after", "")
    return answer.status, int(retry_after) if retry_after.isdigit() else 0


def backoff(failures):
    """Doubled with each failure up to five minutes; spread, so that a fleet does not come back as one."""
    return min(WAIT_MIN * 2 ** min(failures, 16), WAIT_MAX) * random.uniform(0.5, 1.5)


main()
