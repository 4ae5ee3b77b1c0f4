"""The chain browser's rows: a seeded, even sample of all verdicts, as JSON that no chain can break out of.

Rows in: `Verdict`, file by file. Out: at most `MAX_CHAINS` rows, as evenly as possible over model and reason, so that
rare reasons are there to be read; held in memory are at most twice as many and one file.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from retort.records import Verdict
from retort.report.acceptance import run_palette
from retort.report.blocks import Browser, Remark, Section
from retort.report.contents import Contents
from retort.report.formatting import count, shortened, visible
from retort.store.hashing import digest

MAX_CHAINS = 2000
MAX_CHARACTERS = 6000
"""Longer texts are shown with their middle left out, so that the page stays quick: 2,000 such chains are 12 MB."""
SEED = 0
FIELDS = (
    "model",
    "plan",
    "split",
    "thought",
    "reason",
    "problem",
    "index",
    "question",
    "gold",
    "answer",
    "text",
    "tokens",
)

_REASON, _PROBLEM, _QUESTION = map(FIELDS.index, ("reason", "problem", "question"))

Stratum = tuple[str, str]
Ranked = tuple[int, int, int, list[Any]]
"""A row with its rank in the draw, the place of its plan in the run, and a number that tells equal ranks apart."""


def browser(contents: Contents) -> Section:
    """The browser and a word on what is in it."""
    sample, total = draw(contents)
    if not sample:
        return Section("chains", "Chains", (Remark("There are no chains to show."),))
    parts = run_palette(contents)
    colours = {reason: parts.colour(reason) for reason in sorted({row[_REASON] for row in sample})}
    if len(sample) < total:
        told = (
            f"{count(len(sample))} of {count(total)} chains are on this page: a seeded sample, as even as possible "
            f"over model and reason, so that its shares are not those of the run. The verdict artifacts hold them all."
        )
    else:
        told = f"All {count(total)} chains of this run are on this page."
    return Section("chains", "Chains", (Remark(told), Browser(as_json(FIELDS, sample, colours), len(sample))))


def draw(contents: Contents, most: int = MAX_CHAINS) -> tuple[list[list[Any]], int]:
    """At most `most` rows and the number of all verdicts; the same rows, whatever the order in which they are read."""
    strata: dict[Stratum, list[Ranked]] = defaultdict(list)
    sizes: Counter[Stratum] = Counter()
    held = 0
    for place, sampling in enumerate(contents.samplings):
        for verdict in sampling.verdicts.records(Verdict) if sampling.verdicts else ():
            key = [SEED, sampling.model, sampling.plan, verdict.problem_id, verdict.thought, verdict.index]
            stratum = sampling.model, verdict.reason
            row = _row(sampling.model, sampling.wording, verdict)
            strata[stratum].append((int(digest(key)[:16], 16), place, sizes.total(), row))
            sizes[stratum] += 1
            held += 1
            if held >= 2 * most:
                held = _trim(strata, sizes, most)
    _trim(strata, sizes, most)
    kept = [(place, row) for ranked in strata.values() for _, place, _, row in ranked]
    # In the order of the run, the chains of one problem side by side.
    return [row for _, row in sorted(kept, key=lambda one: (one[0], *one[1][_PROBLEM:_QUESTION]))], sizes.total()


def quotas(sizes: Iterable[int], most: int) -> int:
    """The largest size of a stratum at which all of them, cut to it, hold at most `most` rows.

    >>> quotas([10, 2, 10], most=12)
    5
    """
    ordered, left = sorted(sizes), most
    for position, size in enumerate(ordered):
        level = left // (len(ordered) - position)
        if size > level:
            return level
        left -= size
    return ordered[-1] if ordered else 0


def _trim(strata: dict[Stratum, list[Ranked]], sizes: Counter[Stratum], most: int) -> int:
    """Cut the strata to the quota that their sizes so far allow, and say what is left.

    The quota only shrinks as rows come in, so that no row cut early is missed later.
    """
    level = quotas(sizes.values(), most)
    for key, ranked in strata.items():
        strata[key] = heapq.nsmallest(level, ranked)
    return sum(len(ranked) for ranked in strata.values())


def _row(model: str, plan: str, verdict: Verdict) -> list[Any]:
    """One verdict in the order of `FIELDS`."""
    return [
        model,
        plan,
        verdict.split,
        verdict.thought,
        verdict.reason,
        verdict.problem_id,
        verdict.index,
        verdict.question,
        verdict.gold,
        verdict.answer,
        verdict.text,
        verdict.num_tokens,
    ]


def as_json(fields: Iterable[str], rows: Iterable[list[Any]], colours: Mapping[str, str]) -> str:
    """Rows as JSON for a script element: every character is visible, and nothing in it ends or opens markup."""
    shown = [[_shown(value) for value in row] for row in rows]
    data = {
        "fields": list(fields),
        "rows": shown,
        "colours": {visible(reason): colour for reason, colour in colours.items()},
    }
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(value: Any) -> Any:
    return visible(shortened(value, MAX_CHARACTERS)) if isinstance(value, str) else value
