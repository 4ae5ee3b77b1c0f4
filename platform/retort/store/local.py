"""A local folder as a store of write-once objects."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

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
        path = Path(self.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
        return True

    def get(self, key: str) -> bytes:
        return Path(self.root, key).read_bytes()

    def exists(self, key: str) -> bool:
        return Path(self.root, key).is_file()

    def keys(self, prefix: str) -> list[str]:
        root = Path(self.root)
        files = (path for path in (root / prefix).rglob("*") if path.is_file() and not path.name.startswith(_TEMPORARY))
        return sorted(path.relative_to(root).as_posix() for path in files)

    def directory(self, prefix: str) -> str:
        return str(Path(self.root, prefix))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
