"""Canaries: a folder, a port and an environment variable that an attack would change, reach or read."""

import os
import socket
import stat
from pathlib import Path

from attacks.table import SECRET

VARIABLE = "RETORT_CANARY"


class Canaries:
    """One set of them, and whether anything has been at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "secret").write_text(SECRET)
        (folder / "canary.py").write_text(f"secret = {SECRET!r}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        os.environ[VARIABLE] = SECRET
        self._before = self._look()

    def aim(self, program: str) -> str:
        """A program of the table, at these canaries."""
        port = str(self._listener.getsockname()[1])
        aims = {"FILE": str(self.folder / "secret"), "FOLDER": str(self.folder), "PORT": port, "VARIABLE": VARIABLE}
        for name, aim in aims.items():
            program = program.replace(name, aim)
        return program

    def harm(self, said: str) -> list[str]:
        """What an attack that said so did to them: nothing where it failed."""
        found = ["the secret is out"] if SECRET in said else []
        if self._look() != self._before:
            found.append("the folder has changed")
        try:
            self._listener.accept()[0].close()
            found.append("somebody connected")
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        """Take them away; the folder stays."""
        self._listener.close()
        del os.environ[VARIABLE]

    def _look(self) -> dict[str, tuple[int, str]]:
        files = [(path, path.lstat().st_mode) for path in self.folder.iterdir() if path.name != "__pycache__"]
        return {path.name: (mode, path.read_text() if stat.S_ISREG(mode) else "") for path, mode in files}
