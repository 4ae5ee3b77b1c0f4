"""The chain browser: what it shows, packed so that the page stays one file, and no text in it can break out of it.

Rows in: a `Sample`. Out: lines of base64, each a deflated JSON document. The first names the columns; each of the
others is a block of rows: of a column of texts the values that no block before it has, and the rows' codes in all
values so far; of a column of numbers the numbers. So a question is held once, and the page unpacks block by block.

    {"rows": 100000, "coded": ["model", …], "numbers": ["index", …], "colours": {"wrong": "red"}}
    {"values": {"model": ["tiny"], …}, "codes": {"model": [0, 0, …], …}, "numbers": {"index": [0, 1, …], …}}
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from retort.report.blocks import Browser, Choice, Remark, Section
from retort.report.formatting import count, size
from retort.report.reasons import Palette
from retort.report.sample import Row, Sample
from retort.report.tallies import STRATA, UNKNOWN, Asked, Tally

MAX_BYTES = 25_000_000
"""Of the packed chains: about as much as can be sent by mail."""
MAX_TEXT = 80_000_000
"""Characters of all texts: what a search reads within 200 ms, and a phone holds."""
BLOCK_ROWS = 4096
BLOCK_TEXT = 1_000_000
"""Characters of a block's texts: it is unpacked within a few frames."""
CORRECT = {True: "yes", False: "no", None: UNKNOWN}
NUMBERS = ("index", "tokens", "likelihood")
TEXTS = tuple(name for name in Row.__slots__ if name not in (*NUMBERS, "is_correct"))
CODED = (*TEXTS, "correct", "difficulty")


class Packed(NamedTuple):
    """The rows that the page has room for, as a sample and as the text of a script element that is no script."""

    sample: Sample
    rows: list[Row]
    data: str


def pack(sample: Sample, palette: Palette, max_bytes: int = MAX_BYTES, max_text: int = MAX_TEXT) -> Packed:
    """All rows of a sample, or where they are too large for one page a smaller sample of the same kind."""
    while True:
        rows = sample.rows
        text = sum(len(row.text) for row in rows)
        lines = list(packed(rows, sample.tallies, palette)) if text <= max_text else []
        num_bytes = sum(len(line) + 1 for line in lines)
        if not rows or (lines and num_bytes <= max_bytes):
            return Packed(sample, rows, "\n".join(lines))
        room = max_bytes / num_bytes if lines else max_text / text
        sample = sample.cut(int(len(rows) * min(0.95, room)))


def browser(packed: Packed) -> Section:
    """The browser and a word on what is in it."""
    sample, rows, data = packed
    if not sample.total:
        return Section("chains", "Chains", (Remark("There are no chains to show."),))
    if len(rows) < sample.total:
        told = (
            f"{count(len(rows))} of {count(sample.total)} chains are on this page, {size(len(data))} of it: a seeded "
            f"sample, as even as possible over model and reason, so that its shares are not those of the run. The "
            f"verdict artifacts hold them all."
        )
    else:
        told = f"All {count(sample.total)} chains of this run are on this page."
    told += (
        " Difficulty is the share of right ones among all chains of the model on the problem under the thought. A "
        "chain's link opens it here again."
    )
    has_tokens, has_likelihood = any(row.tokens for row in rows), any(row.likelihood is not None for row in rows)
    # What all rows have in common is no choice.
    choices = tuple(choice for choice in _choices(packed) if len(choice.options) > 1)
    return Section(
        "chains",
        "Chains",
        (Remark(told), Browser(data, len(rows), choices, has_tokens, has_likelihood)),
    )


def _choices(packed: Packed) -> Iterator[Choice]:
    """What the rows can be filtered by."""
    rows, tallies = packed.rows, packed.sample.tallies
    wordings = {row.plan: row.wording for row in rows}
    present = {tallies[row.asked].stratum for row in rows}
    for name in ("model", "plan", "task", "split", "thought", "reason"):
        values: list[str] = list(dict.fromkeys(getattr(row, name) for row in rows))
        ordered = values if name in ("model", "plan") else sorted(values)
        words = wordings if name == "plan" else {value: value.replace("_", " ") for value in ordered}
        yield Choice(name, tuple((value, words[value]) for value in ordered))
    outcomes = {CORRECT[row.is_correct] for row in rows}
    yield Choice("correct", tuple((word, word) for word in CORRECT.values() if word in outcomes))
    yield Choice("difficulty", tuple((word, word) for word in (*STRATA, UNKNOWN) if word in present))


def packed(rows: Sequence[Row], tallies: Mapping[Asked, Tally], palette: Palette) -> Iterator[str]:
    """The lines: base64 has no character that ends a script element."""
    colours = {reason: palette.colour(reason) for reason in sorted({row.reason for row in rows})}
    yield _line({"rows": len(rows), "coded": CODED, "numbers": NUMBERS, "colours": colours})
    known: dict[str, dict[str | None, int]] = {name: {} for name in CODED}
    for block in _blocks(rows):
        columns = {name: [getattr(row, name) for row in block] for name in TEXTS}
        columns["correct"] = [CORRECT[row.is_correct] for row in block]
        columns["difficulty"] = [tallies[row.asked].stratum for row in block]
        before = {name: len(codes) for name, codes in known.items()}
        coded = {
            name: [known[name].setdefault(value, len(known[name])) for value in values]
            for name, values in columns.items()
        }
        yield _line(
            {
                "values": {name: list(codes)[before[name] :] for name, codes in known.items()},
                "codes": coded,
                "numbers": {name: [getattr(row, name) for row in block] for name in NUMBERS},
            }
        )


def _blocks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = text = 0
    for end, row in enumerate(rows):
        text += len(row.text)
        if text > BLOCK_TEXT or end - start == BLOCK_ROWS:
            yield rows[start : end + 1]
            start, text = end + 1, 0
    yield rows[start:]


def _line(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode())).decode()
