"""Libraries as a device would use them: httpx (h11, h2) and curl_cffi (libcurl with BoringSSL, nghttp2, ngtcp2)."""

import asyncio
import functools

import httpx
from curl_cffi import requests

from wire import TIMEOUT_SECONDS, report


class Httpx:
    def __init__(self, client, base, protocol):
        self.client, self.base, self.protocol = client, base, protocol

    @classmethod
    async def open(cls, target, protocol):
        client = httpx.AsyncClient(
            verify=target.context(None),
            http1=protocol == "h1",
            http2=protocol == "h2",
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
        )
        return cls(client, f"https://{target.host}:{target.port}", protocol)

    async def request(self, ask):
        answer = await self.client.request(ask.method, self.base + ask.path, headers=ask.headers, content=ask.body)
        check_version(answer.http_version, {"h1": "HTTP/1.1", "h2": "HTTP/2"}[self.protocol])
        return report(answer.status_code, answer.headers.multi_items(), answer.content)

    async def close(self):
        await self.client.aclose()


class CurlCffi:
    VERSIONS = {"h1": "v1", "h2": "v2", "h3": "v3only"}
    ANSWERED = {"h1": 2, "h2": 3, "h3": 30}

    def __init__(self, session, base, protocol):
        self.session, self.base, self.protocol = session, base, protocol

    @classmethod
    async def open(cls, target, protocol):
        # libcurl drives itself in a thread; driven by asyncio its QUIC timers come late, and uploads stall.
        session = requests.Session(
            cert=(target.cert, target.key) if target.cert else None,
            verify=target.ca,
            http_version=cls.VERSIONS[protocol],
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
        )
        return cls(session, f"https://{target.host}:{target.port}", protocol)

    async def request(self, ask):
        send = functools.partial(self.session.request, headers=dict(ask.headers), data=ask.body)
        answer = await asyncio.to_thread(send, ask.method, self.base + ask.path)
        check_version(answer.http_version, self.ANSWERED[self.protocol])
        return report(answer.status_code, answer.headers.multi_items(), answer.content)

    async def close(self):
        self.session.close()


def check_version(spoken, wanted):
    if spoken != wanted:
        raise ConnectionError(f"{spoken} was spoken, not {wanted}")
