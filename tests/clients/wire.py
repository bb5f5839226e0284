"""What the three wire clients share. They say exactly what they are told: heads and bodies that a polite library would
refuse to send, bodies that stop in the middle, connections that change their address.

A client is made by `await Client.open(target)`; `await client.request(ask)` gives a reply. Failures are exceptions."""

import asyncio
import base64
import dataclasses
import ssl

TIMEOUT_SECONDS = 30


class Context(ssl.SSLContext):
    """Resumes a session: asyncio has no parameter for it."""

    resumed = None

    def wrap_bio(self, *arguments, **named):
        if self.resumed:
            named["session"] = self.resumed
        return super().wrap_bio(*arguments, **named)


async def connect(target, protocols):
    """A connection with its context, and whether its session was resumed."""
    context = target.context(protocols)
    context.resumed = target.resumes and target.resumes.writer.get_extra_info("ssl_object").session
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", target.port, ssl=context, server_hostname=target.host
    )
    return reader, writer, context, writer.get_extra_info("ssl_object").session_reused


class NotSent(ConnectionError):
    """The request was not sent, or the gateway has said that it was not looked at: it may be sent again."""


@dataclasses.dataclass
class Target:
    """Where to connect, as whom, and how."""

    port: int
    ca: str
    cert: str | None = None
    key: str | None = None
    host: str = "localhost"
    tls_max: str | None = None
    alpn: bool = True
    # A client of the same kind whose session this one resumes.
    resumes: object = None

    def context(self, protocols):
        if self.resumes:
            return self.resumes.context
        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        if self.tls_max == "1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if self.alpn and protocols:
            context.set_alpn_protocols(protocols)
        return context


@dataclasses.dataclass
class Ask:
    """One request. `length` is the Content-Length: `None` declares none. With `held` set, the body goes on, and ends,
    with what that future brings."""

    method: str
    path: str
    authority: str
    headers: list
    body: bytes
    length: str | None
    held: asyncio.Future | None = None

    def head(self):
        """The head of HTTP/2 and HTTP/3."""
        pseudo = [(":method", self.method), (":scheme", "https"), (":authority", self.authority), (":path", self.path)]
        declared = [] if self.length is None else [("content-length", self.length)]
        return pseudo + [(name.lower(), value) for name, value in self.headers] + declared

    def has_body(self):
        return bool(self.body) or self.held is not None


class Reply:
    """An answer that is coming in."""

    def __init__(self):
        self.headers = []
        self.body = bytearray()
        self.done = asyncio.get_running_loop().create_future()

    def end(self):
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error):
        if not self.done.done():
            self.done.set_exception(error)

    def reset(self, code):
        self.fail(ConnectionError(f"stream reset {code}"))

    def stop(self, code):
        """Whoever waits for an answer does not mind that nothing more is read."""

    async def wait(self):
        await asyncio.wait_for(self.done, TIMEOUT_SECONDS)
        return report(dict(self.headers)[":status"], self.headers, self.body)


def report(status, headers, body):
    fields = [[name.lower(), value] for name, value in headers if not name.startswith(":")]
    return {"status": int(status), "headers": fields, "body": base64.b64encode(bytes(body)).decode()}
