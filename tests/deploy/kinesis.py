"""A Kinesis on a free port: ferrokinesis, behind a proxy that notes each call, and adds what ferrokinesis 0.7.0 lacks when a stream is
created: on demand, with tags, within a limit of such streams."""

import http.client
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import PATIENCE, eventually, free_port, tool

VERSION = "Kinesis_20131202"
REGION = "eu-central-1"


class Kinesis:
    def __init__(self):
        self.backend = free_port()
        self.calls = []
        self.process = subprocess.Popen(
            [tool("ferrokinesis"), "serve", "--port", str(self.backend), "--region", REGION,
             *(word for what in ("create", "update", "delete") for word in (f"--{what}-stream-ms", "0"))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually("ferrokinesis", lambda: self.may_ask("ListStreams"))
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Proxy,), {"kinesis": self}))
        self.proxy.daemon_threads = True
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.proxy.server_port}"

    def forward(self, headers, body):
        """Status, content type and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=PATIENCE)
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()

    def ask(self, operation, **request):
        authorization = f"AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/kinesis/aws4_request, SignedHeaders=host, Signature=x"
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{VERSION}.{operation}",
                   "Authorization": authorization, "X-Amz-Date": "20260101T000000Z"}
        status, _, body = self.forward(headers, json.dumps(request))
        assert status == 200, f"{operation}: {body}"
        return json.loads(body) if body else {}

    def may_ask(self, operation):
        try:
            return self.ask(operation)
        except OSError:
            assert self.process.poll() is None, "ferrokinesis has ended"

    def streams(self):
        return self.ask("ListStreams")["StreamNames"]

    def summary(self, stream):
        return self.ask("DescribeStreamSummary", StreamName=stream)["StreamDescriptionSummary"]

    def records(self, stream):
        found = []
        for shard in self.ask("ListShards", StreamName=stream)["Shards"]:
            iterator = self.ask("GetShardIterator", StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
            found += self.ask("GetRecords", ShardIterator=iterator["ShardIterator"])["Records"]
        return found

    def stop(self):
        self.proxy.shutdown()
        self.proxy.server_close()
        self.process.terminate()
        self.process.wait(PATIENCE)


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].removeprefix(f"{VERSION}.")
        self.kinesis.calls.append(operation)
        answer = getattr(self, operation, self.forward)
        status, kind, text = answer(body)
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def forward(self, body):
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length", "connection")}
        return self.kinesis.forward(kept, body)

    def DescribeLimits(self, body):
        status, kind, text = self.forward(body)
        return status, kind, json.dumps(json.loads(text) | {"OnDemandStreamCountLimit": 50}).encode()

    def CreateStream(self, body):
        """With the four shards that a new stream on demand has."""
        request = json.loads(body)
        name = request["StreamName"]
        answer = self.forward(json.dumps({"StreamName": name, "ShardCount": request.get("ShardCount", 4)}).encode())
        if answer[0] == 200:
            # Changed while it is being created, a stream of ferrokinesis may stay so.
            eventually("a stream that is there", lambda: self.kinesis.summary(name)["StreamStatus"] == "ACTIVE")
            self.kinesis.ask("AddTagsToStream", StreamName=name, Tags=request["Tags"])
            arn = self.kinesis.summary(name)["StreamARN"]
            self.kinesis.ask("UpdateStreamMode", StreamARN=arn, StreamModeDetails=request["StreamModeDetails"])
        return answer

    def log_message(self, *_):
        pass
