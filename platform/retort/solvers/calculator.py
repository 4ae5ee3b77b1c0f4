"""Calculator annotations: `<<16-3=13>>` in a solution, checked or filled in (PAPERS 2.3, GSM8K's own marks).

Arithmetic is read by `answers`, so that a step and a final answer are equal under the same rules.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from retort import answers

ANNOTATION = re.compile(r"<<([^<>=]{1,100})=([^<>=]{1,40})>>")
OPEN = re.compile(r"<<([^<>=]{1,100})(?:=[^<>]{0,40})?\Z")
END = ">>"


class Checked(NamedTuple):
    """Of the annotations of a text, how many could be recomputed, and how many of those were right."""

    num_steps: int
    num_right_steps: int


def check(text: str) -> Checked:
    """Recompute every annotation. A value that is rounded to the digits it is written with is right: 10/3=3.33."""
    results = [_is_right(*match.groups()) for match in ANNOTATION.finditer(text)]
    return Checked(sum(result is not None for result in results), sum(result is True for result in results))


def complete(text: str) -> str | None:
    """A text that stopped inside an annotation, with its value computed and the annotation closed.

    `… = <<16-3=` and `… = <<16-3=12` both become `… = <<16-3=13>>`; None where no annotation is open, or what is in it
    cannot be computed.
    """
    inside = OPEN.search(text)
    value = inside and answers.canonical("number", inside[1])
    if inside is None or value is None:
        return None
    return f"{text[: inside.start()]}<<{inside[1]}={value}{END}"


def value(text: str) -> str | None:
    """The value of the last annotation of a text."""
    found = ANNOTATION.findall(text)
    return found[-1][1] if found else None


def without(text: str) -> str:
    """A text without its annotations."""
    return ANNOTATION.sub("", text)


def _is_right(expression: str, written: str) -> bool | None:
    computed, said = answers.canonical("number", expression), answers.canonical("number", written)
    if computed is None or said is None or "%" in computed + said:
        return None
    decimals = len(said.partition(".")[2])
    return abs(Fraction(computed) - Fraction(said)) <= Fraction(1, 2 * 10**decimals) * (decimals > 0)
