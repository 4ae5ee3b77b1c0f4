"""Where everything lives: objects under one URI, in a local folder or in S3-compatible storage."""

from pathlib import Path

from retort.store import s3
from retort.store.interface import Object, Store
from retort.store.local import LocalStore

__all__ = ["Object", "Store", "address", "check_uri", "fetch", "open_store"]


def check_uri(uri: str) -> None:
    """Refuse what cannot be a store. Asks neither network nor disk.

    Raises:
        ValueError: the scheme is unknown, the path is relative, or a setting of S3 is not one.
    """
    if uri.startswith("s3://"):
        s3.parse(uri)
    else:
        _local_path(uri)


def open_store(uri: str) -> Store:
    """The store at a URI: an absolute path, `file://…` or `s3://bucket/prefix`, which is tried out.

    Raises:
        ValueError: as `check_uri`; or an S3 store that cannot be used (no bucket, no or wrong credentials), or that
            overwrites what must be written once.
        TimeoutError: an S3 store that does not answer.
    """
    if not uri.startswith("s3://"):
        path = _local_path(uri)
        if Path(path).exists() and not Path(path).is_dir():
            raise ValueError(f"store {uri!r}: is a file; expected a folder, which is made where it is not there")
        return LocalStore(path)
    store = s3.resolve(uri)
    store.check()
    return store


def address(store: Store, key: str) -> str:
    """The URI of an object, or of what lies below a prefix; `fetch` takes it on any machine."""
    base, mark, settings = store.uri.partition("?") if not store.is_local else (store.uri, "", "")
    return f"{base}/{key.rstrip('/')}{mark}{settings}"


def fetch(uri: str) -> str:
    """A local directory with what lies below a URI: the files of a checkpoint, wherever they are.

    Raises:
        ValueError: as `check_uri`.
        OSError: storage that cannot be read.
    """
    return s3.resolve(uri).directory("") if uri.startswith("s3://") else _local_path(uri)


def _local_path(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    path = rest if separator else uri
    if separator and scheme != "file":
        raise ValueError(f"store {uri!r}: unknown scheme {scheme!r}, expected an absolute path, file:///… or s3://…")
    if not path.startswith("/"):
        raise ValueError(
            f"store {uri!r}: a relative path is another one in another working directory; expected an absolute one"
        )
    return path
