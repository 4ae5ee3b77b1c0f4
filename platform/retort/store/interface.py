"""The seam of storage: objects by key under one URI, on a local disk or in S3."""

from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol


class Object(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size: int
    modified_at_s: float
    """By the clock of the store."""


class Store(Protocol):
    """Objects by key (`a/b/c`); an object is whole or absent, whatever dies. Stores are picklable.

    What a run produces is written once, by `put`; `replace` is for signs of life, `delete` for compaction and gc,
    `move` for damaged segments.
    """

    @property
    def uri(self) -> str:
        """Absolute address of the store."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        ...

    def put(self, key: str, data: bytes) -> bool:
        """Write an object durably. False, and nothing changes, where the key is already there."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size durably, in parts where it is large; only to keys that one writer has for itself."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Write an object whether it is there or not; readers see the old or the new one."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def move(self, key: str, new_key: str) -> None:
        """Give an object another key, in place of what had it; nothing passes through here. Its age begins anew.

        Raises:
            FileNotFoundError: it is gone.
        """
        ...

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises FileNotFoundError."""
        ...

    def open(self, key: str) -> BinaryIO:
        """An object to read in pieces (some columns of a large Parquet file). Raises FileNotFoundError."""
        ...

    def exists(self, key: str) -> bool: ...

    def objects(self, prefix: str) -> list[Object]:
        """What lies below a prefix that ends at a `/`, or below a part of a name, sorted by key."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Sorted keys below a prefix that ends at a `/`."""
        ...

    def directory(self, prefix: str) -> str:
        """A local, read-only directory with the objects below a prefix."""
        ...
