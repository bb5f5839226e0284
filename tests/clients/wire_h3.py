"""HTTP/3 by aioquic. Many requests at a time, a change of address, and streams that no polite client would send."""

import asyncio
import collections
import ssl

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection, StreamType
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset

from wire import TIMEOUT_SECONDS, NotSent, Reply

# RFC 9114 section 8.1.
REQUEST_CANCELLED = 0x10C

# The first stream of one direction that a server opens.
GATEWAY_CONTROL = 3

# Between two looks at what the gateway allows.
PAUSE_SECONDS = 0.001


class Asked(Reply):
    """An answer, and whether 100 Continue has come before it: a client that expects it does not send a body otherwise."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()


class Poured(Asked):
    """A stream of bytes as they are, and what the gateway makes of it."""

    def __init__(self, ends, is_one_way):
        super().__init__()
        self.fate = {"status": None, "stopped": None, "reset": None, "closed": None}
        # Which directions are over.
        self.sent, self.answered = ends, is_one_way

    def stop(self, code):
        self.fate["stopped"], self.sent = code, True
        self.settle()

    def reset(self, code):
        self.fate["reset"] = code
        self.end()

    def end(self):
        self.answered = True
        self.settle()

    def fail(self, error):
        self.fate["closed"], self.sent, self.answered = str(error), True, True
        self.settle()

    def settle(self):
        if self.sent and self.answered:
            super().end()

    async def wait(self):
        await asyncio.wait_for(self.done, TIMEOUT_SECONDS)
        status = dict(self.headers).get(":status")
        return {**self.fate, "status": status and int(status)}


class Void:
    """Where the packets of a client go that has vanished."""

    def sendto(self, data, addr=None):
        pass

    def abort(self):
        pass

    def close(self):
        pass


class H3(QuicConnectionProtocol):
    def __init__(self, quic):
        super().__init__(quic)
        self.http = H3Connection(quic)
        self.replies = {}
        # Of the gateway's streams of one direction.
        self.received = collections.defaultdict(bytes)
        self.goaway = None
        self.ended = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, target):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_REQUIRED)
        configuration.load_verify_locations(target.ca)
        configuration.server_name = target.host
        if target.cert:
            configuration.load_cert_chain(target.cert, target.key)
        configuration.session_ticket = target.resumes and target.resumes.tickets[-1]
        tickets = []
        client = cls(QuicConnection(configuration=configuration, session_ticket_handler=tickets.append))
        client.tickets = tickets
        await client.bind()
        client.connect(("127.0.0.1", target.port))
        await asyncio.wait_for(client.wait_connected(), TIMEOUT_SECONDS)
        client.resumed = client._quic.tls.session_resumed
        return client

    def datagram_received(self, data, addr):
        """The library does not look for a stateless reset (RFC 9000 section 10.3.1)."""
        known = [self._quic._peer_cid, *self._quic._peer_cid_available]
        if not self.ended.done() and data[-16:] in [cid.stateless_reset_token for cid in known]:
            self.ended.set_result("stateless reset")
            for reply in self.replies.values():
                reply.fail(ConnectionError("stateless reset"))
        super().datagram_received(data, addr)

    async def bind(self):
        """A socket of its own, on a port that nobody has used."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    async def move(self):
        """From now on packets come from another port, as after a NAT has forgotten the old one."""
        left = self._transport
        await self.bind()
        left.abort()

    def vanish(self):
        """Nothing is sent or received any more, as by a device without power."""
        self._transport.abort()
        self._transport = Void()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            end = f"close {event.error_code} {event.reason_phrase}"
            for reply in self.replies.values():
                reply.fail(ConnectionError(end))
            if not self.ended.done():
                self.ended.set_result(end)
        elif isinstance(event, StreamReset) and event.stream_id in self.replies:
            self.replies[event.stream_id].reset(event.error_code)
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.replies:
            self.replies[event.stream_id].stop(event.error_code)
        for part in self.http.handle_event(event):
            if isinstance(part, (HeadersReceived, DataReceived)) and part.stream_id in self.replies:
                self.take(self.replies[part.stream_id], part)
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            self.look_for_goaway(event)

    def look_for_goaway(self, event):
        """The library reads over it: requests from its id on are not looked at."""
        self.received[event.stream_id] += event.data
        buffer = Buffer(data=self.received[event.stream_id])
        try:
            while buffer.tell() or buffer.pull_uint_var() == StreamType.CONTROL:
                kind, frame = buffer.pull_uint_var(), buffer.pull_bytes(buffer.pull_uint_var())
                if kind == FrameType.GOAWAY:
                    self.goaway = Buffer(data=frame).pull_uint_var()
        except BufferReadError:
            pass
        for stream, reply in self.replies.items():
            if self.goaway is not None and stream >= self.goaway:
                reply.fail(NotSent("refused by goaway"))

    def take(self, reply, part):
        if isinstance(part, HeadersReceived) and dict(part.headers).get(b":status") == b"100":
            reply.asked.set()
        elif isinstance(part, HeadersReceived):
            reply.headers.extend((name.decode(), value.decode()) for name, value in part.headers)
        else:
            reply.body.extend(part.data)
        if part.stream_ended:
            reply.end()

    async def request(self, ask):
        if self.ended.done() or self.goaway is not None:
            raise NotSent(self.ended.result() if self.ended.done() else "goaway")
        stream = self._quic.get_next_available_stream_id()
        reply = self.replies[stream] = Asked()
        head = [(name.encode(), value.encode()) for name, value in ask.head()]
        self.http.send_headers(stream, head, end_stream=not ask.has_body())
        self.transmit()
        sending = asyncio.create_task(self.send(stream, ask, reply))
        try:
            return await reply.wait()
        finally:
            if ask.held is None:
                sending.cancel()

    async def send(self, stream, ask, reply):
        if not ask.has_body():
            return
        if ["expect", "100-continue"] in map(list, ask.headers):
            await reply.asked.wait()
        self.piece(stream, ask.body, end=ask.held is None)
        if ask.held is not None:
            self.piece(stream, await ask.held, end=True)

    def piece(self, stream, data, end):
        self.http.send_data(stream, data, end_stream=end)
        self.transmit()

    def stream_for(self, on):
        own = {
            "control": self.http._local_control_stream_id,
            "encoder": self.http._local_encoder_stream_id,
            "decoder": self.http._local_decoder_stream_id,
        }
        if on in own:
            return own[on]
        return self._quic.get_next_available_stream_id(is_unidirectional=on == "uni")

    async def pour(self, ask, data, times, ends, on):
        """The head of `ask`, if there is one, and these bytes so many times, on a stream of its own or that for control."""
        stream = self.stream_for(on)
        poured = self.replies[stream] = Poured(ends, on != "request")
        if ask:
            self.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in ask.head()])
        for _ in range(times):
            self._quic.send_stream_data(stream, data)
            self.transmit()
            # Acknowledgements come in between, and what ends this.
            await asyncio.sleep(0)
            if self.ended.done() or poured.fate["stopped"] is not None:
                break
        if ends and poured.fate["stopped"] is None:
            self._quic.send_stream_data(stream, b"", end_stream=True)
        self.transmit()
        return await poured.wait()

    async def stop_critical(self, code):
        """Asks the gateway to send no more on its control stream, once that is there."""
        while GATEWAY_CONTROL not in self._quic._streams:
            await asyncio.sleep(PAUSE_SECONDS)
        self._quic.stop_stream(GATEWAY_CONTROL, code)
        self.transmit()

    async def churn(self, ask, times):
        """Requests that are given up at once, so many or until the connection ends: how many there were, and how it ended."""
        begun = 0
        head = [(name.encode(), value.encode()) for name, value in ask.head()]
        for _ in range(times):
            stream = self._quic.get_next_available_stream_id()
            # Not beyond what the gateway allows at a time, which would end the connection for another reason.
            while not self.ended.done() and stream // 4 >= self._quic._remote_max_streams_bidi:
                await asyncio.sleep(PAUSE_SECONDS)
            if self.ended.done():
                break
            self.http.send_headers(stream, head)
            self._quic.reset_stream(stream, REQUEST_CANCELLED)
            self._quic.stop_stream(stream, REQUEST_CANCELLED)
            self.transmit()
            begun += 1
            await asyncio.sleep(0)
        return begun, await self.closed()

    def told(self):
        """What the gateway allows: open streams, bytes under way, datagrams; and bytes ahead of the next handshake."""
        quic = self._quic
        return {
            "requests": quic._remote_max_streams_bidi,
            "streams_of_one_direction": quic._remote_max_streams_uni,
            "connection_bytes": quic._remote_max_data,
            "stream_bytes": quic._remote_max_stream_data_bidi_remote,
            "datagram_bytes": quic._remote_max_datagram_frame_size or 0,
            "early_data": max((ticket.max_early_data_size or 0 for ticket in self.tickets), default=None),
        }

    async def closed(self):
        return await asyncio.wait_for(asyncio.shield(self.ended), TIMEOUT_SECONDS)

    async def close(self):
        self._quic.close()
        self.transmit()
