#!/usr/bin/env python3
"""Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.

    buffer.py https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings

The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
are wrong.
"""

import gzip
import http.client
import json
import queue
import random
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

SAFE = 204
AGAIN = {408, 429, 503, 504}  # as is no answer at all
STOP = {403, 404, 405, 421}  # where the whole request is refused: the certificate or the address is wrong, for all others too
TOO_MUCH = {"too-many-records", "body-too-large"}
BATCH_MAX = 100  # readings in one request: no more than the device's burst
BUFFER_MAX = 10_000  # readings that wait; then standard input does
ANSWER_TIMEOUT = 15
WAIT_MIN, WAIT_MAX = 1, 300
BOOT_MAX = 50  # a key has 58 at most


def main():
    if len(sys.argv) != 6 or len(sys.argv[5]) > BOOT_MAX:
        fail("usage: buffer.py URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most")
    url, ca, certificate, key, boot = sys.argv[1:]
    try:
        connection = connect(urlsplit(url), ca, certificate, key)
    except OSError as error:
        fail(f"{ca}, {certificate} or {key} cannot be used: {error}")
    lines = queue.Queue(BUFFER_MAX)
    threading.Thread(target=read, args=(lines,), daemon=True).start()
    sys.exit(0 if deliver(connection, boot, lines) else 1)


def fail(why):
    print(why, file=sys.stderr)
    sys.exit(2)


def connect(address, ca, certificate, key):
    """It connects with the first request, stays connected, and connects anew after a close."""
    tls = ssl.create_default_context(cafile=ca)  # checks the server's chain, dates and name
    tls.load_cert_chain(certificate, key)
    return http.client.HTTPSConnection(address.hostname, address.port, context=tls, timeout=ANSWER_TIMEOUT)


def read(lines):
    for line in sys.stdin.buffer:
        if line.rstrip(b"\r\n"):
            lines.put(line.rstrip(b"\n"))
    lines.put(None)  # there are no more


def fill(batch, lines, size):
    """Waits for a reading where there is none, and takes those that wait with it."""
    while len(batch) < size and lines is not None:
        try:
            line = lines.get(block=not batch)
        except queue.Empty:
            break
        if line is None:
            return None
        batch.append(line)
    return lines


def deliver(connection, boot, lines):
    """Sends all readings; whether all of them are safe."""
    batch, size, failures, number, all_safe = [], BATCH_MAX, 0, 1, True
    while True:
        lines = fill(batch, lines, size)
        if not batch:
            return all_safe
        name, sent = f"{boot}-{number:06}", batch[:size]
        status, retry_after, problem = post(connection, name, sent)
        if problem.get("code") in TOO_MUCH and len(sent) > 1:
            size, number = len(sent) // 2, number + 1
            continue
        left, refused = judge(status, problem, sent)
        for reading, code in refused:
            all_safe = False
            print(f"{name}: refused, {code}: {reading[:100]!r}", file=sys.stderr)
        if status in STOP and "records" not in problem:
            return False
        batch[: len(sent)] = left
        if left != sent:
            number += 1  # a key names readings by their place: others have another key
        if left:
            wait = max(retry_after, backoff(failures))
            print(f"{name}: {status or 'no answer'}, {len(left)} again in {wait:.1f} s", file=sys.stderr)
            time.sleep(wait)
            failures += 1
        else:
            failures = 0


def judge(status, problem, sent):
    """The readings to send again, and those that are refused for good, each with its code."""
    verdicts = problem.get("records")
    if verdicts:  # what is in neither list is safe
        refused = [(sent[verdict["index"]], verdict["code"]) for verdict in verdicts["rejected"]]
        return [sent[index] for index in verdicts["retry"]], refused
    if status == SAFE:
        return [], []
    if status is None or status in AGAIN:
        return sent, []
    return [], [(reading, problem.get("code", status)) for reading in sent]


def post(connection, name, readings):
    """The status, or None where no answer came; the seconds of Retry-After; and the problem."""
    fields = {"content-type": "application/x-ndjson", "content-encoding": "gzip", "idempotency-key": name}
    try:
        connection.request("POST", "/v1/telemetry/records", gzip.compress(b"\n".join(readings)), fields)
        answer = connection.getresponse()
        body = answer.read()  # to the end, or the connection cannot be used again
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        print(f"{name}: {error}", file=sys.stderr)
        return None, 0, {}
    retry_after = answer.headers.get("retry-after", "")
    is_problem = answer.headers.get("content-type") == "application/problem+json"
    return answer.status, int(retry_after) if retry_after.isdigit() else 0, json.loads(body) if is_problem else {}


def backoff(failures):
    """Doubled with each failure up to five minutes; spread, so that a fleet does not come back as one."""
    return min(WAIT_MIN * 2 ** min(failures, 16), WAIT_MAX) * random.uniform(0.5, 1.5)


main()
