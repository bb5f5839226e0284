"""HTTP/1.1 by hand, over asyncio's TLS. One request at a time."""

import asyncio
import ssl

from wire import TIMEOUT_SECONDS, connect, report


class H1:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, target):
        reader, writer, context, resumed = await connect(target, ["http/1.1"])
        client = cls(reader, writer)
        client.context, client.resumed = context, resumed
        return client

    async def request(self, ask):
        sending = asyncio.create_task(self.send(ask))
        try:
            return await asyncio.wait_for(self.receive(), TIMEOUT_SECONDS)
        finally:
            if ask.held is None:
                sending.cancel()

    async def raw(self, data):
        self.writer.write(data)
        return await asyncio.wait_for(self.receive(), TIMEOUT_SECONDS)

    async def send(self, ask):
        lines = [f"{ask.method} {ask.path} HTTP/1.1", f"host: {ask.authority}"]
        lines += [f"{name}: {value}" for name, value in ask.headers]
        lines.append("transfer-encoding: chunked" if ask.length is None else f"content-length: {ask.length}")
        end = b"0\r\n\r\n" if ask.length is None else b""
        # In one piece where it can be: a gateway that refuses at once then has no unread rest, for which it must close.
        start = "\r\n".join(lines).encode() + b"\r\n\r\n" + self.piece(ask, ask.body)
        if ask.held is None:
            self.writer.write(start + end)
        else:
            self.writer.write(start)
            self.writer.write(self.piece(ask, await ask.held) + end)
        await self.writer.drain()

    def piece(self, ask, data):
        return b"%x\r\n%s\r\n" % (len(data), data) if ask.length is None and data else data

    async def receive(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in head[1:] if line]
        length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
        return report(head[0].split(" ")[1], headers, await self.reader.readexactly(length))

    async def closed(self):
        try:
            rest = await asyncio.wait_for(self.reader.read(), TIMEOUT_SECONDS)
            return f"end after {len(rest)} bytes"
        except (ConnectionError, ssl.SSLError) as error:
            return repr(error)

    async def close(self):
        self.writer.close()
