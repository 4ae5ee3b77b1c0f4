"""Clocks that are stepped under running processes, by libfaketime (Debian: `libfaketime`, and `gcc` to mend it)."""

import subprocess
from pathlib import Path

FAKETIME = "faketime/libfaketimeMT.so.1"
MENDING = Path(__file__).parent / "clock_sleeps.c"


class SteppedClock:
    """The wall clock of the processes that are started with `environment`; the monotonic clock stays as it is."""

    def __init__(self, folder: Path) -> None:
        found = list(Path("/usr/lib").glob(f"*/{FAKETIME}"))
        assert found, f"no /usr/lib/*/{FAKETIME}: install libfaketime"
        mending = folder / "clock_sleeps.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(mending), str(MENDING)], check=True)
        self._offset = folder / "clock"
        self.step(0)
        self.environment = {
            "LD_PRELOAD": f"{mending}:{found[0]}",
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_s: int) -> None:
        """Put the clock so far before or behind the true time, within a second."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{offset_s:+}\n")
        new.rename(self._offset)
