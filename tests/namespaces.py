"""A network namespace with one cable to this machine, which a test cuts. Needs root."""

import os
import secrets
import subprocess
from types import TracebackType
from typing import Self


class Namespace:
    """As another machine would be: addresses of its own, and a link that may be down."""

    def __init__(self) -> None:
        self.name = f"retort-{secrets.token_hex(2)}"
        self._cable = f"rt{secrets.token_hex(4)}"
        net = f"10.{200 + os.getpid() % 50}.{secrets.randbelow(250)}"
        self.ip, self.ip_of_host = f"{net}.2", f"{net}.1"

    @property
    def within(self) -> list[str]:
        """What to put before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", f"{self._cable}x", "netns", self.name)
        _ip("addr", "add", f"{self.ip_of_host}/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self.name, "addr", "add", f"{self.ip}/24", "dev", f"{self._cable}x")
        for device in (f"{self._cable}x", "lo"):
            _ip("-n", self.name, "link", "set", device, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ip("link", "del", self._cable)
        _ip("netns", "del", self.name)

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        _ip("link", "set", self._cable, "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
