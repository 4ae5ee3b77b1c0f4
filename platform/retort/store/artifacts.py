"""Artifacts: a stage's finished output, addressed by what decides it, complete when its manifest exists.

    artifacts/verdicts/3fa94c…/manifest.json            written last, conditionally
    artifacts/verdicts/3fa94c…/<attempt>/part-03.parquet

Each attempt writes under a name of its own and the manifest names the files of the one that won, so that an attempt
that died, or that ran twice at once, leaves nothing that a reader could mistake for the output.
"""

import importlib.metadata
import io
import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retort.logs import event
from retort.records import Record, from_table, to_table
from retort.store import Store, address
from retort.store.hashing import canonical_json, digest

logger = logging.getLogger(__name__)
FORMAT = 1
"""Of a manifest; those without one were written before it was said, and are of the first."""


@dataclass(frozen=True)
class Address:
    """What decides an output: stage, its code's `version`, settings, digests of inputs, versions of libraries."""

    stage: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    libraries: Sequence[str] = ()

    def describe(self) -> dict[str, Any]:
        """The address as JSON, as the manifest keeps it."""
        return {
            "stage": self.stage,
            "version": self.version,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "libraries": {name: library_version(name) for name in sorted(self.libraries)},
        }

    @property
    def prefix(self) -> str:
        return f"artifacts/{self.stage}/{digest(self.describe())[:24]}/"


@cache
def library_version(library: str) -> str:
    """The version of an installed library, looked up once: a sweep asks for those of thousands of trials."""
    return importlib.metadata.version(library)


@dataclass(frozen=True)
class File:
    """A file of an artifact and the object that holds it."""

    name: str
    key: str
    size: int


def read_table(store: Store, key: str) -> pa.Table:
    """The rows of a Parquet file of an artifact, every page checked against its sum.

    Raises:
        ValueError: it is damaged; the line says what to delete.
    """
    try:
        return pq.read_table(io.BytesIO(store.get(key)), use_threads=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        manifest = "/".join([*key.split("/")[:3], "manifest.json"])
        raise ValueError(
            f"{address(store, key)} cannot be read ({' '.join(str(error).split())}); if it is damaged delete "
            f"{address(store, manifest)} and run again: all of it is made anew"
        ) from error


@dataclass(frozen=True)
class Artifact:
    """A finished output. `manifest` holds the address, `files`, `stats`, `seconds` and `created_at_s`."""

    store: Store
    prefix: str
    manifest: dict[str, Any]

    @property
    def uri(self) -> str:
        return address(self.store, self.prefix)

    @property
    def id(self) -> str:
        """Digest of the address: enough to name the artifact as another's input."""
        return self.prefix.rstrip("/").rsplit("/", 1)[1]

    @property
    def stats(self) -> dict[str, Any]:
        return self.manifest["stats"]

    def read(self, name: str) -> bytes:
        """One file's bytes. Raises FileNotFoundError."""
        for file in self.manifest["files"]:
            if file["name"] == name:
                return self.store.get(file["key"])
        raise FileNotFoundError(
            f"{self.uri} has no file {name!r}; it has {[file['name'] for file in self.manifest['files']]}"
        )

    def records(self, record: type[Record]) -> Iterator[Record]:
        """Rows of all Parquet files of the artifact, file by file in the order of their names."""
        for file in sorted(self.manifest["files"], key=lambda file: file["name"]):
            if file["name"].endswith(".parquet"):
                yield from from_table(record, read_table(self.store, file["key"]))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Rows of a JSON-lines file."""
        return [json.loads(line) for line in self.read(name).decode().split("\n") if line]

    def directory(self) -> str:
        """A local directory with the files of the artifact (all from one attempt)."""
        return self.store.directory(self._attempt)

    @property
    def location(self) -> str:
        """Where any machine that reaches the store finds the files: a path, or a URI that `fetch` takes."""
        return self.directory() if self.store.is_local else address(self.store, self._attempt)

    @property
    def _attempt(self) -> str:
        return self.manifest["files"][0]["key"].rsplit("/", 1)[0] + "/"


def find(store: Store, address: Address) -> Artifact | None:
    """The finished output at an address, or None: one look-up."""
    return open_artifact(store, address.prefix)


def open_artifact(store: Store, prefix: str) -> Artifact | None:
    """The artifact at a prefix, or None where it is not finished.

    Raises:
        ValueError: the manifest is of a format that this release does not read.
    """
    try:
        manifest: dict[str, Any] = json.loads(store.get(f"{prefix}manifest.json"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{address(store, f'{prefix}manifest.json')} is damaged ({error}); delete it and run again: all of it is "
            f"made anew"
        ) from error
    if manifest.get("format", 1) != FORMAT:
        raise ValueError(
            f"{address(store, f'{prefix}manifest.json')}: format {manifest['format']!r}; expected {FORMAT}; read it "
            f"with the release that wrote it"
        )
    return Artifact(store, prefix, manifest)


@dataclass(frozen=True)
class Writer:
    """One attempt to produce an output; picklable, so that distributed tasks write their own parts.

    Only files given to `commit` belong to the artifact: parts of tasks that died or were retried stay outside.
    """

    store: Store
    address: Address
    label: str = ""
    """What the stage is of, such as a student, where the log is to say so."""
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started_at_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """Tell the journal; a copy that is sent to a worker tells nothing."""
        told = event("stage started", self.address.stage, self.label, self.address.prefix, self.attempt)
        logger.info("making %s", f"{self.address.stage} {self.label}".rstrip(), extra=told)

    def put(self, name: str, data: bytes) -> File:
        """Write a file. Of two writers of one name in an attempt (a retried task) the first wins."""
        key = f"{self.address.prefix}{self.attempt}/{name}"
        self.store.put(key, data)
        return File(name, key, len(data))

    def put_records(self, name: str, record: type[Record], rows: Sequence[Record]) -> File:
        """Write rows as Parquet."""
        return self.put(name, parquet_bytes(to_table(record, rows)))

    def put_lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> File:
        """Write JSON lines."""
        return self.put(name, "".join(canonical_json(dict(row)) + "\n" for row in rows).encode())

    def put_directory(self, path: Path) -> list[File]:
        """Write every file of a flat directory, of any size."""
        return [self.put_file(file) for file in sorted(path.iterdir()) if file.is_file()]

    def put_file(self, path: Path) -> File:
        """Write a file of any size under its own name."""
        key = f"{self.address.prefix}{self.attempt}/{path.name}"
        self.store.put_file(key, path)
        return File(path.name, key, path.stat().st_size)

    def commit(self, files: Sequence[File], stats: Mapping[str, Any]) -> Artifact:
        """Write the manifest: the output is done. If another attempt was first, that one's artifact is returned."""
        manifest = {
            "format": FORMAT,
            **self.address.describe(),
            "attempt": self.attempt,
            "files": [{"name": file.name, "key": file.key, "size": file.size} for file in files],
            "stats": dict(stats),
            "seconds": round(time.time() - self.started_at_s, 3),
            "created_at_s": round(time.time(), 3),
        }
        self.store.put(f"{self.address.prefix}manifest.json", json.dumps(manifest, indent=1).encode())
        found = find(self.store, self.address)
        assert found is not None
        return found


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file with page checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
