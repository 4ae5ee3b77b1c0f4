"""A store that counts what S3 would be asked: requests by method and kind of object, and bytes, of every process.

Each process has a file of its own with its counters in it, mapped into its memory: what a killed process counted stays.
A listing is a request for each thousand keys, as in S3; a segment that is read in pieces counts as one.
"""

import functools
import math
import mmap
import os
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from retort.store import Object, Store

KINDS = ("segments", "claims", "sessions", "artifacts", "other")
METHODS = ("PUT", "GET", "LIST", "DELETE", "HEAD")
PAGE = 1000
_NAMES = [f"{method} {kind}" for method in METHODS for kind in KINDS] + ["B sent", "B received"]
_PLACES = {name: 8 * number for number, name in enumerate(_NAMES)}
_LOCK = threading.Lock()

Counts = Counter[str]
"""Requests by method and kind of object, and `B sent` and `B received`."""


@dataclass(frozen=True)
class CountingStore:
    """Another store, and a folder for the counters."""

    inner: Store
    folder: str

    @property
    def uri(self) -> str:
        return self.inner.uri

    @property
    def is_local(self) -> bool:
        return self.inner.is_local

    def put(self, key: str, data: bytes) -> bool:
        self._count("PUT", key, sent=len(data))
        return self.inner.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._count("PUT", key, sent=path.stat().st_size)
        self.inner.put_file(key, path)

    def replace(self, key: str, data: bytes) -> None:
        self._count("PUT", key, sent=len(data))
        self.inner.replace(key, data)

    def delete(self, key: str) -> None:
        self._count("DELETE", key)
        self.inner.delete(key)

    def move(self, key: str, new_key: str) -> None:
        self._count("PUT", new_key)
        self._count("DELETE", key)
        self.inner.move(key, new_key)

    def get(self, key: str) -> bytes:
        self._count("GET", key)
        data = self.inner.get(key)
        self._count("GET", key, received=len(data), requests=0)
        return data

    def open(self, key: str) -> BinaryIO:
        self._count("GET", key)
        return self.inner.open(key)

    def exists(self, key: str) -> bool:
        self._count("HEAD", key)
        return self.inner.exists(key)

    def objects(self, prefix: str) -> list[Object]:
        found = self.inner.objects(prefix)
        self._count("LIST", prefix, requests=max(1, math.ceil(len(found) / PAGE)))
        return found

    def keys(self, prefix: str) -> list[str]:
        return [found.key for found in self.objects(prefix)]

    def directory(self, prefix: str) -> str:
        return self.inner.directory(prefix)

    def counts(self) -> dict[int, Counts]:
        """What each process has asked so far, by its pid."""
        found: dict[int, Counts] = {}
        for path in Path(self.folder).iterdir():
            values = struct.unpack(f"{len(_NAMES)}q", path.read_bytes())
            found[int(path.name)] = Counter(dict(zip(_NAMES, values, strict=True)))
        return found

    def _count(self, method: str, key: str, sent: int = 0, received: int = 0, requests: int = 1) -> None:
        kind = next((kind for kind in KINDS if f"{kind}/" in key), "other")
        with _LOCK:
            counters = _counters(self.folder, os.getpid())
            for name, more in ((f"{method} {kind}", requests), ("B sent", sent), ("B received", received)):
                place = _PLACES[name]
                struct.pack_into("q", counters, place, struct.unpack_from("q", counters, place)[0] + more)


@functools.cache
def _counters(folder: str, pid: int) -> mmap.mmap:
    path = Path(folder, str(pid))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(8 * len(_NAMES)))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
