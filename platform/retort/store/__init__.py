"""Where everything lives: write-once objects under one URI. S3 joins the local folder behind the same seam."""

from typing import Protocol

from retort.store.local import LocalStore


class Store(Protocol):
    """Write-once objects by key (`a/b/c`); an object is whole or absent, whatever dies. Stores are picklable."""

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

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises FileNotFoundError."""
        ...

    def exists(self, key: str) -> bool: ...

    def keys(self, prefix: str) -> list[str]:
        """Sorted keys below a prefix that ends at a `/`."""
        ...

    def directory(self, prefix: str) -> str:
        """A local, read-only directory with the objects below a prefix."""
        ...


def open_store(uri: str) -> Store:
    """The store at a URI: an absolute path or `file://…`.

    Raises:
        ValueError: the scheme is unknown or the path is relative.
    """
    scheme, separator, rest = uri.partition("://")
    path = rest if separator else uri
    if separator and scheme != "file":
        raise ValueError(f"store {uri!r}: unknown scheme {scheme!r}, expected an absolute path or file:///…")
    if not path.startswith("/"):
        raise ValueError(
            f"store {uri!r}: a relative path is another one in another working directory; expected an absolute one"
        )
    return LocalStore(path)
