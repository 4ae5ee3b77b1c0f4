"""A server between a client and an S3 server that does what networks and loaded servers do.

    with Faulty(endpoint) as between:
        between.next("503", "reset", "lose", "slow")     of the requests to come, each has one of these
        between.always("ExpiredToken")                   until told otherwise

`503` and other statuses, and names of S3's errors, are answers in place of the server's; `reset` breaks the connection
before the request goes on, `lose` after the server has done what was asked; `slow` waits for a second; `pass` is none.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

STATUS_OF = {"ExpiredToken": 400, "SlowDown": 503, "ConditionalRequestConflict": 409}


class Faulty:
    """Forwards to an endpoint. `seen` lists what came: method, path, and the answer's status (0: none)."""

    def __init__(self, upstream: str) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.accepts: Callable[[Any], bool] = lambda _: True
        """Of a request's headers; what is not accepted is answered with ExpiredToken."""
        self._faults: list[str] = []
        self._standing: str | None = None
        self._lock = threading.Lock()
        host = urlsplit(upstream).netloc

        class Handler(_Handler):
            between, upstream_host = self, host

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def next(self, *faults: str) -> None:
        with self._lock:
            self._faults.extend(faults)

    def always(self, fault: str | None) -> None:
        with self._lock:
            self._standing = fault

    def take(self, headers: Any) -> str | None:
        if not self.accepts(headers):
            return "ExpiredToken"
        with self._lock:
            fault = self._faults.pop(0) if self._faults else self._standing
            return None if fault == "pass" else fault

    def __enter__(self) -> "Faulty":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    between: Faulty
    upstream_host: str

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.between.take(self.headers)
        if fault == "slow":
            time.sleep(1)
        if fault == "reset":
            return self.reset()
        if fault is not None and fault not in ("slow", "lose"):
            status = STATUS_OF.get(fault) or int(fault)
            code = fault if fault in STATUS_OF else "InternalError"
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>"
            return self.reply(status, [("Content-Type", "application/xml")], text.encode())
        upstream = http.client.HTTPConnection(self.upstream_host, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
        except OSError:
            return self.reset()
        finally:
            upstream.close()
        if fault == "lose":
            return self.reset()
        return self.reply(answer.status, answer.getheaders(), data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815 (http.server calls them so)

    def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.between.seen.append((self.command, self.path, status))
        self.send_response_only(status)
        own = ("connection", "transfer-encoding", *(["content-length"] if self.command != "HEAD" else []))
        for name, value in headers:
            if name.lower() not in own:
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def reset(self) -> None:
        """End the connection the hard way, as a killed server does."""
        self.between.seen.append((self.command, self.path, 0))
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass
