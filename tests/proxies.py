"""A proxy on the loopback interface between a client and an HTTP server, that does to requests what networks do.

A connection carries one request: the head is read, to know what it is and to answer in the server's place, and all else
is passed on byte by byte, so that a connection can break anywhere.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
CHUNK = 1 << 12
REASONS = {400: "Bad Request", 500: "Internal Server Error", 503: "Slow Down"}
CODES = {400: "ExpiredToken", 500: "InternalError", 503: "SlowDown"}


@dataclass(frozen=True)
class Request:
    """What the head of a request says, and the head itself."""

    method: str
    path: str
    access_key: str
    length: int
    head: bytes


@dataclass(frozen=True)
class Streams:
    """One side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """Close with a reset in place of a farewell."""
        endpoint: socket.socket = self.writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[["Proxy", Request, Streams], Awaitable[None]]
"""Sees to one request in place of `Proxy.pass_on`."""


def answer(status: int) -> Fault:
    """Refuse, as an overloaded or broken server does."""

    async def refuse(proxy: "Proxy", request: Request, client: Streams) -> None:
        body = f"<Error><Code>{CODES[status]}</Code><Message>injected</Message></Error>".encode()
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        client.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await client.writer.drain()
        # A connection closed over unread bytes is reset, and the refusal lost.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while await client.reader.read(CHUNK):
                    pass

    return refuse


def slow(delay_s: float, bytes_per_s: float) -> Fault:
    """Begin late, and pass on little at a time in both directions."""

    async def pass_slowly(proxy: "Proxy", request: Request, client: Streams) -> None:
        await asyncio.sleep(proxy.rng.uniform(0, delay_s))
        await proxy.pass_on(request, client, bytes_per_s)

    return pass_slowly


def reset_request() -> Fault:
    """Break the connection while the client sends: the server has part of it."""

    async def break_off(proxy: "Proxy", request: Request, client: Streams) -> None:
        await proxy.pass_on(request, client, most_sent=proxy.rng.randrange(len(request.head) + request.length))

    return break_off


def reset_response() -> Fault:
    """Break the connection while the server answers: it has done what it was asked, and the client cannot know."""

    async def break_off(proxy: "Proxy", request: Request, client: Streams) -> None:
        await proxy.pass_on(request, client, most_received=proxy.rng.randrange(300))

    return break_off


class Proxy:
    """Passes on to `upstream` (http://host:port); while `fault` is set, `share` of the requests fare otherwise."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        place = urlsplit(upstream)
        self.rng = random.Random(seed)
        self.fault: Fault | None = None
        self.share = 1.0
        self.refused_keys: set[str] = set()
        """Access keys that have expired, whatever the server says of them."""
        self.requests: Counter[str] = Counter()
        """By method; those that a fault befell also under `hit`, those with an expired key under `expired`."""
        self.under_way: list[Request] = []
        self._upstream = place.hostname, place.port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def pass_on(
        self,
        request: Request,
        client: Streams,
        bytes_per_s: float | None = None,
        most_sent: int | None = None,
        most_received: int | None = None,
    ) -> None:
        """Relay a request and its answer; where a number of bytes is set, reset both sides after so many."""
        server = Streams(*await asyncio.open_connection(*self._upstream))
        # One request a connection: the end of the answer is then the end of the stream.
        head = request.head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        sending = asyncio.create_task(relay(client.reader, server.writer, bytes_per_s, most_sent, head))
        receiving = asyncio.create_task(relay(server.reader, client.writer, bytes_per_s, most_received))
        try:
            done, _ = await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                client.reset()
                server.reset()
        finally:
            sending.cancel()
            receiving.cancel()
            server.writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        client = Streams(reader, writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                request = parse(await reader.readuntil(b"\r\n\r\n"))
                self.requests[request.method] += 1
                self.under_way.append(request)
                try:
                    await self._see_to(request, client)
                finally:
                    self.under_way.remove(request)
        finally:
            writer.close()
            self._open.discard(task)

    async def _see_to(self, request: Request, client: Streams) -> None:
        if request.access_key in self.refused_keys:
            self.requests["expired"] += 1
            await answer(400)(self, request, client)
        elif self.fault is not None and self.rng.random() < self.share:
            self.requests["hit"] += 1
            await self.fault(self, request, client)
        else:
            await self.pass_on(request, client)

    async def _close(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def parse(head: bytes) -> Request:
    """The head of a request as it came."""
    text = head.decode("latin-1")
    method, path, _ = text.split(" ", 2)
    length = re.search(r"(?i)\r\ncontent-length: *(\d+)", text)
    key = re.search(r"(?i)\r\nauthorization:[^\r]*Credential=([^/\r]+)/", text)
    return Request(method, path, key[1] if key else "", int(length[1]) if length else 0, head)


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    bytes_per_s: float | None,
    most: int | None,
    first: bytes = b"",
) -> bool:
    """Pass bytes on until they end; whether it stopped because `most` had been passed."""
    passed = 0
    while data := first or await reader.read(CHUNK):
        first = b""
        data = data if most is None else data[: most - passed]
        writer.write(data)
        await writer.drain()
        passed += len(data)
        if passed == most:
            return True
        if bytes_per_s is not None:
            await asyncio.sleep(len(data) / bytes_per_s)
    return False
