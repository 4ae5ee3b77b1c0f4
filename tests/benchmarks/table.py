"""What a benchmark leaves: `build/bench/NAME.json`, and a row for each of its figures in one table.

    python tests/benchmarks/table.py

prints the table of all that was measured on this machine.
"""

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"


class Result(NamedTuple):
    """One figure. Where it has a bar, more is better and the bar is the least that is good enough."""

    name: str
    ratio: float
    bar: float | None
    median_s: float | None
    """Seconds of ours; None where nothing was timed."""
    spread: tuple[float, float]
    """Least and largest ratio of all runs."""
    runs: list[dict[str, Any]]

    @property
    def is_reached(self) -> bool:
        return self.bar is None or self.ratio >= self.bar

    def row(self) -> str:
        """Its row of the table."""
        bar = "" if self.bar is None else f"{self.bar:g}"
        verdict = "" if self.bar is None else "reached" if self.is_reached else "MISSED"
        seconds = "" if self.median_s is None else f"{self.median_s:.1f} s"
        spread = f"{figure(self.spread[0])} … {figure(self.spread[1])}" if len(self.runs) > 1 else ""
        return line(self.name, figure(self.ratio), bar, verdict, seconds, spread, str(len(self.runs)))


def line(name: str, ratio: str, bar: str, verdict: str, seconds: str, spread: str, runs: str) -> str:
    """The columns of the table."""
    return f"{name:<72} {ratio:>9} {bar:>6} {verdict:<8} {seconds:>9} {spread:>17} {runs:>4}"


HEAD = line("", "ratio", "bar", "", "median", "spread", "runs")


def figure(value: float) -> str:
    """A ratio with its decimals, a large count without."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def of_pairs(name: str, bar: float | None, theirs: Sequence[float], ours: Sequence[float], **more: Any) -> Result:
    """How many times longer the others took: the median over pairs that ran one after the other."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    runs = [{"theirs_s": their, "ours_s": our, **more} for their, our in zip(theirs, ours, strict=True)]
    return Result(name, statistics.median(ratios), bar, statistics.median(ours), (min(ratios), max(ratios)), runs)


def write(benchmark: str, results: Sequence[Result], folder: Path = FOLDER) -> Path:
    """Keep the results of one benchmark and print their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.json"
    path.write_text(json.dumps([result._asdict() for result in results], indent=1) + "\n")
    print(f"\n{machine()}\n{HEAD}")
    for result in results:
        print(result.row())
    return path


def read(path: Path) -> list[Result]:
    """The results of one benchmark."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return [Result(**row)._replace(spread=(row["spread"][0], row["spread"][1])) for row in rows]


def machine() -> str:
    """What it was measured on."""
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {found[1] if found else platform.machine()}, Python {platform.python_version()}"


def main() -> None:
    """Print the table of all benchmarks that were run here."""
    print(f"{machine()}\n{HEAD}")
    for path in sorted(FOLDER.glob("*.json")):
        for result in read(path):
            print(result.row())


if __name__ == "__main__":
    main()
