"""A local folder as a store of write-once objects."""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from retort.store.interface import Object

_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class LocalStore:
    """Objects are files below `root`.

    An object is written to a temporary file, synced, and hard-linked to its name, which fails where the name is taken:
    readers see whole objects only and the first of two writers wins. A crash leaves at most a temporary file, which
    listings pass over.
    """

    root: str

    is_local = True

    @property
    def uri(self) -> str:
        return f"file://{self.root}"

    def put(self, key: str, data: bytes) -> bool:
        return self._write(key, lambda temporary: _write_synced(temporary, data), os.link)

    def put_file(self, key: str, path: Path) -> None:
        self._write(key, lambda temporary: _copy_synced(path, temporary), os.link)

    def replace(self, key: str, data: bytes) -> None:
        self._write(key, lambda temporary: _write_synced(temporary, data), os.replace)

    def delete(self, key: str) -> None:
        path = Path(self.root, key)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_directory(path.parent)

    def move(self, key: str, new_key: str) -> None:
        path, new_path = Path(self.root, key), Path(self.root, new_key)
        os.utime(path)
        new_path.parent.mkdir(parents=True, exist_ok=True)
        path.replace(new_path)
        _sync_directory(new_path.parent)
        _sync_directory(path.parent)

    def get(self, key: str) -> bytes:
        return Path(self.root, key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        return Path(self.root, key).open("rb")

    def exists(self, key: str) -> bool:
        return Path(self.root, key).is_file()

    def objects(self, prefix: str) -> list[Object]:
        folder, _, start = prefix.rpartition("/")
        found: list[Object] = []
        pending = [Path(self.root, folder)]
        for place in pending:
            try:
                entries = list(os.scandir(place))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                if entry.name.startswith(_TEMPORARY) or (place is pending[0] and not entry.name.startswith(start)):
                    continue
                if entry.is_dir():
                    pending.append(Path(entry.path))
                    continue
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # deleted since
                    continue
                found.append(Object(os.path.relpath(entry.path, self.root), stat.st_size, stat.st_mtime))
        return sorted(found)

    def keys(self, prefix: str) -> list[str]:
        return [found.key for found in self.objects(prefix)]

    def directory(self, prefix: str) -> str:
        return str(Path(self.root, prefix))

    def _write(self, key: str, write: Callable[[Path], None], name: Callable[[Path, Path], None]) -> bool:
        path = Path(self.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            write(temporary)
            name(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
        return True


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_synced(source: Path, path: Path) -> None:
    with source.open("rb") as read, path.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
