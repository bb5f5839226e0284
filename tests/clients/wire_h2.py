"""HTTP/2 by hyper-h2, over asyncio's TLS. Many requests at a time."""

import asyncio

import h2.config
import h2.connection
import h2.events

from wire import TIMEOUT_SECONDS, NotSent, Reply, connect


class Connection(h2.connection.H2Connection):
    """Goes on after a GOAWAY, as it must (RFC 9113 section 6.8): requests up to the last id are still answered. The
    library takes it for the end."""

    def _receive_goaway_frame(self, frame):
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


class H2:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = Connection(config)
        self.replies = {}
        self.progress = asyncio.Condition()
        self.goaway = None
        self.ended = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, target):
        reader, writer, context, resumed = await connect(target, ["h2"])
        client = cls(reader, writer)
        client.context, client.resumed = context, resumed
        client.h2.initiate_connection()
        client.flush()
        client.reading = asyncio.create_task(client.read())
        return client

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def request(self, ask):
        if self.goaway or self.ended.done():
            raise NotSent(self.goaway or self.ended.result())
        stream = self.h2.get_next_available_stream_id()
        reply = self.replies[stream] = Reply()
        self.h2.send_headers(stream, ask.head(), end_stream=not ask.has_body())
        self.flush()
        sending = asyncio.create_task(self.send(stream, ask))
        try:
            return await reply.wait()
        finally:
            if ask.held is None:
                sending.cancel()

    async def send(self, stream, ask):
        if not ask.has_body():
            return
        await self.piece(stream, ask.body)
        if ask.held is not None:
            await self.piece(stream, await ask.held)
        self.h2.end_stream(stream)
        self.flush()

    async def piece(self, stream, data):
        while data:
            async with self.progress:
                await self.progress.wait_for(lambda: self.h2.local_flow_control_window(stream) > 0)
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, data[:room])
            self.flush()
            data = data[room:]

    async def read(self):
        end = "end of connection"
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()
                async with self.progress:
                    self.progress.notify_all()
        except Exception as error:
            end = repr(error)
        end = self.goaway or end
        for reply in self.replies.values():
            reply.fail(ConnectionError(end))
        self.ended.set_result(end)

    def handle(self, event):
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = f"goaway {event.error_code}"
            for stream, reply in self.replies.items():
                if stream > event.last_stream_id:
                    reply.fail(NotSent("refused by goaway"))
        reply = self.replies.get(getattr(event, "stream_id", None))
        if reply is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            reply.headers.extend(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            reply.body.extend(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            reply.end()
        elif isinstance(event, h2.events.StreamReset):
            reply.fail(ConnectionError(f"stream reset {event.error_code}"))

    async def closed(self):
        return await asyncio.wait_for(asyncio.shield(self.ended), TIMEOUT_SECONDS)

    async def close(self):
        self.reading.cancel()
        self.writer.close()
