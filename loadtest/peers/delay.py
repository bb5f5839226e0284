#!/usr/bin/env python3
"""A TCP proxy on loopback whose answers take their time: a broker in another region, or on object storage.

    delay.py LISTEN_PORT TARGET_PORT MILLISECONDS

What the target sends arrives MILLISECONDS later, in its order; what it is sent arrives at once. A number on a line of standard
input is the new delay, `away` ends every connection and takes no more, `back` takes them again. It ends with its standard input."""

import asyncio
import sys
import time


class Proxy:
    def __init__(self, target, delay_s):
        self.target, self.delay_s, self.is_away, self.writers = target, delay_s, False, set()

    async def serve(self, reader, writer):
        if self.is_away:
            return writer.close()
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.close()
        pair = {writer, target_writer}
        self.writers |= pair
        await asyncio.gather(self.forward(reader, target_writer), self.answer(target_reader, writer), return_exceptions=True)
        self.writers -= pair
        for end in pair:
            end.close()

    async def forward(self, reader, writer):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def answer(self, reader, writer):
        """Reads on while earlier answers wait: the delay is a distance, not a pause."""
        pieces = asyncio.Queue(4096)

        async def send():
            while item := await pieces.get():
                due, piece = item
                await asyncio.sleep(max(0, due - time.monotonic()))
                writer.write(piece)
                await writer.drain()
            writer.close()

        sending = asyncio.ensure_future(send())
        try:
            while piece := await reader.read(1 << 16):
                await pieces.put((time.monotonic() + self.delay_s, piece))
        finally:
            await pieces.put(None)
            await sending

    def obey(self, line):
        if line == "away":
            self.is_away = True
            for writer in self.writers:
                writer.transport.abort()
        elif line == "back":
            self.is_away = False
        else:
            self.delay_s = float(line) / 1000


async def main(listen, target, milliseconds):
    proxy = Proxy(int(target), float(milliseconds) / 1000)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", int(listen))
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        proxy.obey(line.decode().strip())
    server.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
