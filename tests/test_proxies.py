"""The proxy does to requests what it says, and otherwise passes them on as they are."""

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from proxies import Fault, Proxy, answer, reset_request, reset_response, slow

BODY = random.Random(0).randbytes(20_000)


class Echo(BaseHTTPRequestHandler):
    """Gives back what it is sent."""

    def do_PUT(self) -> None:
        with contextlib.suppress(ConnectionError):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Proxy(f"http://127.0.0.1:{server.server_port}") as made:
        yield made
    server.shutdown()
    thread.join()
    server.server_close()


def put(proxy: Proxy, key: str = "known") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.endpoint).port, timeout=20)
    try:
        connection.request("PUT", "/a", BODY, {"Authorization": f"AWS4-HMAC-SHA256 Credential={key}/today"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_is_not_hurt_is_passed_on_as_it_is(proxy: Proxy) -> None:
    assert put(proxy) == (200, BODY)
    assert proxy.requests == {"PUT": 1}


def test_slow_is_slow_and_whole(proxy: Proxy) -> None:
    proxy.fault = slow(0.0, bytes_per_s=40_000)
    began = time.monotonic()
    assert put(proxy) == (200, BODY)
    assert time.monotonic() - began > len(BODY) / 40_000


@pytest.mark.parametrize("fault", [reset_request(), reset_response()], ids=["request", "response"])
def test_a_reset_is_seen_as_one(proxy: Proxy, fault: Fault) -> None:
    proxy.fault = fault
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        put(proxy)
    assert proxy.requests["hit"] == 1


def test_a_refusal_comes_with_its_reason(proxy: Proxy) -> None:
    proxy.fault = answer(503)
    status, body = put(proxy)
    assert status == 503
    assert b"SlowDown" in body


def test_an_expired_key_is_refused_and_others_are_not(proxy: Proxy) -> None:
    proxy.refused_keys.add("known")
    assert put(proxy)[0] == 400
    assert put(proxy, "new") == (200, BODY)
