"""Counts: what became of the chains of a corpus, as its manifest tells it.

`fates` by split, `{"train/selected": 961, …}`, and `difficulty`, a row for each split, thought and stratum of the pass
rates of its problems:

    {"split": "train", "thought": "cot", "stratum": "(0.25, 0.5]", "problems": 31, "chains": 248, "selected": 83}
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

BOUNDS = (0.25, 0.5, 0.75)
"""Between the strata of difficulty; problems that are never or always solved are strata of their own."""
STRATA = ("0", "(0, 0.25]", "(0.25, 0.5]", "(0.5, 0.75]", "(0.75, 1)", "1")


class Kind(NamedTuple):
    """What chains are counted by. `leads` marks one chain of each problem and thought, so that these can be counted."""

    split: str
    thought: str
    fate: str
    stratum: str | None
    leads: bool


def stratum(rate: float | None) -> str | None:
    """The stratum of a pass rate; None where that is not known."""
    if rate is None:
        return None
    if rate in (0, 1):
        return STRATA[-1] if rate else STRATA[0]
    return STRATA[1 + sum(rate > bound for bound in BOUNDS)]


def rows(counts: Mapping[Kind, int]) -> list[dict[str, Any]]:
    """Counts as rows."""
    return [kind._asdict() | {"count": count} for kind, count in counts.items()]


def stats(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of a corpus, from the `counts` (as rows) and the number of taught `problems` of its parts."""
    fates: Counter[str] = Counter()
    strata: dict[tuple[str, str, str], Counter[str]] = {}
    taught = 0
    for part in parts:
        taught += part["problems"]
        for row in part["counts"]:
            fates[f"{row['split']}/{row['fate']}"] += row["count"]
            if row["stratum"] is not None:
                counted = strata.setdefault((row["split"], row["thought"], row["stratum"]), Counter())
                counted["problems"] += row["count"] * row["leads"]
                counted["chains"] += row["count"]
                counted["selected"] += row["count"] * (row["fate"] == "selected")
    difficulty = [
        {"split": split, "thought": thought, "stratum": named, **strata[split, thought, named]}
        for split, thought, named in sorted(strata, key=lambda key: (*key[:2], STRATA.index(key[2])))
    ]
    told = dict(sorted(fates.items()))
    return {"rows_in": fates.total(), "fates": told, "problems": taught, "difficulty": difficulty}
