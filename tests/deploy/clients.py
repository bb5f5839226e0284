"""Devices on all protocols: the wire clients of tests/clients, driven by lines of JSON."""

import base64
import itertools
import json
import subprocess

from conftest import PATIENCE, ROOT, TOOLS


class Clients:
    def __init__(self):
        self.process = subprocess.Popen(
            [TOOLS / "venv/bin/python", "-B", ROOT / "tests/clients/driver.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.numbers, self.answers = itertools.count(1), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)

    def begin(self, do, **command):
        number = next(self.numbers)
        print(json.dumps({"id": number, "do": do} | command), file=self.process.stdin, flush=True)
        return number

    def wait(self, number):
        """The answer to a command; what failed is a ConnectionError."""
        while number not in self.answers:
            answer = json.loads(self.process.stdout.readline())
            self.answers[answer["id"]] = answer
        answer = self.answers.pop(number)
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return answer

    def open(self, protocol, gateway, device="plc-7", cert=..., key=None, resumes=None):
        ca, certificate, its_key = map(str, gateway.files(device))
        identity = {"cert": certificate, "key": its_key} if cert is ... else {"cert": cert, "key": key}
        target = {"port": gateway.port, "ca": ca, "resumes": resumes} | identity
        opened = self.wait(self.begin("open", client="wire", protocol=protocol, target=target))
        return Client(self, opened["session"], opened["resumed"])


class Client:
    """One connection of a device."""

    def __init__(self, clients, number, resumed):
        self.clients, self.number, self.resumed = clients, number, resumed
        self.wait = clients.wait

    def ask(self, body=b"1", method="POST", path="/v1/telemetry", authority=None, headers=(), length=...):
        return {"method": method, "path": path, "authority": authority, "headers": list(headers),
                "body": base64.b64encode(body).decode(), "length": str(len(body)) if length is ... else length}

    def begin(self, ask):
        return self.clients.begin("request", session=self.number, ask=ask)

    def send(self, ask):
        return self.wait(self.begin(ask))

    def hold(self, ask):
        """The body does not end before it is released."""
        return self.clients.begin("hold", session=self.number, ask=ask)

    def release(self, held, rest):
        """The status of a request that was held, once the rest of its body is sent."""
        self.wait(self.clients.begin("release", request=held, bytes=base64.b64encode(rest).decode()))
        return self.wait(held)["status"]
