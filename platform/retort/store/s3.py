"""S3-compatible storage as a store of write-once objects, at `s3://bucket/prefix?endpoint=…&region=…&…`.

    s3://models/retort
    s3://models/retort?endpoint=http://10.0.0.7:9000&region=us-east-1&addressing=path&checksums=when_required

What the URI leaves out comes from the usual environment or profile when the store is opened, and goes with the store to
other machines. Credentials do not: each process looks for its own, where boto3 does.
"""

import contextlib
import fcntl
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import platformdirs
from botocore.exceptions import ClientError

from retort.store.connection import Connection, connect, status_of
from retort.store.hashing import digest
from retort.store.interface import Object

PART_BYTES = 16 << 20
_MOST_PARTS = 10_000  # S3's limit
_THREADS = 4
_CHOICES = {"addressing": ("path", "virtual"), "checksums": ("when_required", "when_supported")}
_SETTINGS = ("endpoint", "region", *_CHOICES)
Result = TypeVar("Result")


class ParsedUri(NamedTuple):
    """What a URI says: bucket, prefix without slashes at its ends, settings."""

    bucket: str
    prefix: str
    settings: dict[str, str]


@dataclass(frozen=True)
class S3Store:
    """Objects below a prefix of a bucket. `put` is a conditional PUT (`If-None-Match: *`), of which one writer wins.

    Trouble that passes (throttling, 5xx, lost connections) is waited for, up to two minutes a request; then, and for
    whatever does not pass, the error is an OSError that names object and cause. Parts of uploads that were never
    finished stay in the bucket, unseen: let its lifecycle rule end them.
    """

    bucket: str
    prefix: str
    connection: Connection

    is_local = False

    @property
    def uri(self) -> str:
        values = {name: getattr(self.connection, name) for name in _SETTINGS}
        settings = urlencode({name: value for name, value in values.items() if value is not None}, safe=":/")
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + f"?{settings}"

    def put(self, key: str, data: bytes) -> bool:
        return self._put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.replace(key, path.read_bytes())
            return
        where = self._where(key)
        upload = {
            **where,
            "UploadId": self._try("put", key, lambda s3: s3.create_multipart_upload(**where)["UploadId"]),
        }

        def put_part(number: int, start: int, length: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(length)
            made = self._try("put", key, lambda s3: s3.upload_part(**upload, PartNumber=number, Body=data))
            return {"PartNumber": number, "ETag": made["ETag"]}

        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._abort, key, upload)
            with ThreadPoolExecutor(_THREADS) as threads:
                numbered = [(number, *span) for number, span in enumerate(_spans(size), 1)]
                parts = list(threads.map(put_part, *zip(*numbered, strict=True)))
            self._complete(key, size, upload, parts)
            on_failure.pop_all()

    def replace(self, key: str, data: bytes) -> None:
        self._try("put", key, lambda s3: s3.put_object(**self._where(key), Body=data))

    def delete(self, key: str) -> None:
        self._try("delete", key, lambda s3: s3.delete_object(**self._where(key)))

    def move(self, key: str, new_key: str) -> None:
        source = self._where(key)
        self._try("copy", key, lambda s3: s3.copy_object(**self._where(new_key), CopySource=source))
        self.delete(key)

    def get(self, key: str) -> bytes:
        return self._try("get", key, lambda s3: s3.get_object(**self._where(key))["Body"].read())

    def open(self, key: str) -> BinaryIO:
        """Read through pyarrow, which has retries of its own, for as long; its errors are OSErrors too."""
        where = self._where(key)
        return cast(BinaryIO, self.connection.file_system().open_input_file(f"{where['Bucket']}/{where['Key']}"))

    def exists(self, key: str) -> bool:
        try:
            self._try("head", key, lambda s3: s3.head_object(**self._where(key)))
        except FileNotFoundError:
            return False
        return True

    def objects(self, prefix: str) -> list[Object]:
        where = self._where(prefix)
        listing = {"Bucket": where["Bucket"], "Prefix": where["Key"]}
        found: list[Object] = []
        while True:
            page = self._try("list", prefix, lambda s3: s3.list_objects_v2(**listing))
            found += [
                Object(row["Key"][len(where["Key"]) - len(prefix) :], row["Size"], row["LastModified"].timestamp())
                for row in page.get("Contents", [])
            ]
            if not page["IsTruncated"]:
                return sorted(found)
            listing["ContinuationToken"] = page["NextContinuationToken"]

    def keys(self, prefix: str) -> list[str]:
        return [found.key for found in self.objects(prefix)]

    def directory(self, prefix: str) -> str:
        """A copy in this machine's cache, named after what is listed; one process fetches it, others wait for that.

        Raises:
            ValueError: a key that would lead out of the directory.
        """
        found = self.objects(prefix)
        cache = platformdirs.user_cache_path("retort", ensure_exists=True) / "s3"
        cache.mkdir(exist_ok=True)
        name = digest([self.uri, prefix, [[*object_] for object_ in found]])[:24]
        path, partial = cache / name, cache / f"{name}.partial"
        with (cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_dir():
                shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
                partial.mkdir()
                self._fetch(found, prefix, partial)
                partial.rename(path)
        return str(path)

    def check(self) -> None:
        """Make sure that the store can be used, and that it refuses to write a key twice.

        Raises:
            ValueError: it cannot, or does not: claims and manifests would be overwritten.
        """
        key = f".probe-{uuid.uuid4().hex}"
        try:
            first, second = (self._put(key, data, is_opening=True) for data in (b"first", b"second"))
            self._try("delete", key, lambda s3: s3.delete_object(**self._where(key)), is_opening=True)
        except TimeoutError:
            raise
        except OSError as error:
            raise ValueError(
                f"store {self.uri!r} cannot be used: {error}; expected a bucket that this process may read and "
                f"write, with credentials in the environment, a profile or the machine's role"
            ) from error
        if not first or second:
            raise ValueError(
                f"store {self.uri!r} overwrites objects in spite of `If-None-Match: *`; expected one that refuses "
                f"with 412, as AWS, Ceph, MinIO and Swift do"
            )

    def _put(self, key: str, data: bytes, is_opening: bool = False) -> bool:
        was_tried = False

        def write(s3: Any) -> bool:
            nonlocal was_tried
            is_again, was_tried = was_tried, True
            try:
                s3.put_object(**self._where(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if status_of(error) != 412:
                    raise
                # The answer to an earlier try may be lost. Of two writers of the same bytes both may call them theirs.
                return is_again and s3.get_object(**self._where(key))["Body"].read() == data
            return True

        return self._try("put", key, write, is_opening)

    def _complete(self, key: str, size: int, upload: dict[str, str], parts: list[dict[str, Any]]) -> None:
        """Make one object of the parts. After a lost answer the upload is gone and the object is there."""
        try:
            whole = {"Parts": parts}
            self._try("put", key, lambda s3: s3.complete_multipart_upload(**upload, MultipartUpload=whole))
        except FileNotFoundError:
            if [found.size for found in self.objects(key) if found.key == key] != [size]:
                raise

    def _abort(self, key: str, upload: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self._try("abort", key, lambda s3: s3.abort_multipart_upload(**upload), is_opening=True)

    def _fetch(self, found: list[Object], prefix: str, folder: Path) -> None:
        def get_part(object_: Object, start: int, length: int) -> None:
            where = {**self._where(object_.key), "Range": f"bytes={start}-{start + length - 1}"}
            data = self._try("get", object_.key, lambda s3: s3.get_object(**where)["Body"].read())
            with (folder / object_.key.removeprefix(prefix)).open("r+b") as file:
                file.seek(start)
                file.write(data)

        for object_ in found:
            path = folder / object_.key.removeprefix(prefix)
            if ".." in path.parts or not path.is_relative_to(folder):
                raise ValueError(f"{self._named(object_.key)}: a key with '..' or '//' cannot become a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        parts = [(object_, *span) for object_ in found for span in _spans(object_.size)]
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda part: get_part(*part), parts))

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    def _named(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._where(key)['Key']}"

    def _try(self, verb: str, key: str, action: Callable[[Any], Result], is_opening: bool = False) -> Result:
        return self.connection.attempt(f"{verb} {self._named(key)}", action, is_opening)


def parse(uri: str) -> ParsedUri:
    """What an `s3://` URI says. Asks nobody.

    Raises:
        ValueError: no bucket, or a prefix or setting that is none. What may be a secret is not repeated.
    """
    address, _, query = uri.removeprefix("s3://").partition("?")
    shown = f"store 's3://{address.rpartition('@')[2]}'"
    bucket, _, prefix = address.partition("/")
    prefix = prefix.strip("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", bucket):
        raise ValueError(f"{shown}: expected s3://bucket/prefix, the bucket in lower-case letters, digits, '-' and '.'")
    if prefix and (set(prefix.split("/")) & {"", ".", ".."} or re.search(r"[#\\\s]", prefix)):
        raise ValueError(f"{shown}: expected a prefix of names between slashes, without blanks, '#' and '\\'")
    settings: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _SETTINGS or name in settings:
            raise ValueError(f"{shown}: unknown or repeated setting {name!r}; expected each of {list(_SETTINGS)} once")
        settings[name] = value
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"{shown}: {name}={value!r}; expected {' or '.join(_CHOICES[name])}")
    endpoint = urlsplit(settings.get("endpoint", "http://host"))
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.path or "@" in endpoint.netloc:
        raise ValueError(f"{shown}: expected an endpoint such as http://host:9000, without path, user and password")
    return ParsedUri(bucket, prefix, settings)


def resolve(uri: str) -> S3Store:
    """The store at an `s3://` URI, not tried out: enough to read from it. Raises ValueError."""
    parsed = parse(uri)
    try:
        return S3Store(parsed.bucket, parsed.prefix, connect(parsed.settings))
    except ValueError as error:
        raise ValueError(f"store 's3://{parsed.bucket}/{parsed.prefix}': {error}") from error


def _spans(size: int) -> Iterator[tuple[int, int]]:
    """Start and length of each part of an object."""
    length = max(PART_BYTES, -(-size // _MOST_PARTS))
    return ((start, min(length, size - start)) for start in range(0, size, length))
