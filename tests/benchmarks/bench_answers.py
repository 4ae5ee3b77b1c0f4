r"""Pairs of answers and whether they are equal, by hand; and what three comparisons make of them.

`CLEAR` holds pairs on which readers do not differ; `CONVENTION` holds pairs whose verdict a project must choose, with
the one that the author of the table would choose. Both were written before any comparison was run on them, and no pair
is dropped or reworded because of its outcome, so that the figures are held out.

    python tests/benchmarks/bench_answers.py   # the error report in Markdown: counts, time, and every pair that fails

math-verify is asked as it comes and with both sides as LaTeX (`$…$`); where it reads nothing in one of the two texts
the pair is undecided, though its own `verify` then says "different". The last judge is what verification does: ours,
and what that leaves undecided among numbers goes to math-verify as LaTeX (there in the sandbox, here in this process).
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from retort.answers import compare
from retort.records import AnswerKind


@dataclass(frozen=True, slots=True)
class Pair:
    """An answer, the gold answer, and whether a reader who knows the kind of answer takes them for the same."""

    kind: AnswerKind
    answer: str
    gold: str
    equal: bool

    def __str__(self) -> str:
        return f"{self.answer} {'=' if self.equal else '≠'} {self.gold}"


Judge = Callable[[Pair], bool | None]


def _pairs(kind: AnswerKind, equal: bool, *pairs: tuple[str, str]) -> list[Pair]:
    return [Pair(kind, answer, gold, equal) for answer, gold in pairs]


CLEAR: tuple[Pair, ...] = (
    # Notations of one number.
    *_pairs(
        "number",
        True,
        ("18", "18.0"),
        ("18.", "18"),
        ("+18", "18"),
        ("018", "18"),
        (".5", "0.5"),
        ("1,250,000", "1250000"),
        ("1 250 000", "1250000"),
        ("12_500", "12500"),
        ("1.2e4", "12000"),
        ("4E-2", "0.04"),
        ("3 x 10^5", "300000"),
        ("6×10⁴", "60000"),
        ("−12", "-12"),
        ("- 12", "-12"),
        ("-0", "0"),
        ("twelve", "12"),
        ("one hundred and five", "105"),
        ("**42**", "42"),
    ),
    *_pairs(
        "number",
        False,
        ("18", "81"),
        ("18", "-18"),
        ("1.8", "18"),
        ("1,250", "1.250"),
        ("1e3", "10^4"),
        ("12", "12.5"),
        ("1000000", "1000001"),
        ("0.1", "0.01"),
        ("", "0"),
        ("none", "0"),
    ),
    # Currency.
    *_pairs(
        "number",
        True,
        ("$36", "36"),
        ("$1,036.50", "1036.5"),
        ("36 dollars", "$36"),
        ("€ 7.20", "7.2"),
        ("-$5", "-5"),
        ("USD 250", "250"),
    ),
    *_pairs("number", False, ("$36", "$63"), ("$0.50", "50"), ("$4.99", "$5")),
    # Units.
    *_pairs(
        "number",
        True,
        ("14 apples", "14"),
        ("60 km/h", "60"),
        ("25 cm", "25cm"),
        ("16 m^2", "16"),
        ("100 degrees", "100"),
    ),
    *_pairs("number", False, ("14 apples", "15"), ("5 kg", "5 g"), ("3 hours", "3 minutes"), ("16 m^2", "162")),
    # Percent.
    *_pairs("number", True, ("35%", "35 percent"), ("35 %", "35%"), ("12.50%", "12.5%"), ("0.35", "35%")),
    *_pairs("number", False, ("35%", "65%"), ("3.5%", "35%"), ("0.035", "35%")),
    # Fractions and mixed numbers.
    *_pairs(
        "number",
        True,
        ("3/8", "0.375"),
        ("6/16", "3/8"),
        ("-7/2", "-3.5"),
        ("2 1/4", "2.25"),
        ("2 1/4", "9/4"),
        ("½", "0.5"),
        ("1¾", "1.75"),
        ("-1 1/2", "-1.5"),
    ),
    *_pairs("number", False, ("3/8", "8/3"), ("2 1/4", "21/4"), ("1/3", "0.3"), ("-1 1/2", "-0.5")),
    # LaTeX.
    *_pairs(
        "number",
        True,
        (r"\frac{5}{8}", "0.625"),
        (r"\dfrac{5}{8}", r"\frac{5}{8}"),
        (r"-\frac{1}{4}", r"\frac{-1}{4}"),
        (r"\boxed{204}", "204"),
        ("$204$", "204"),
        (r"3\frac{1}{2}", "3.5"),
        (r"1{,}024", "1024"),
        (r"40\%", "40%"),
        (r"45^\circ", "45"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"15\text{ cm}", "15"),
        (r"2 \times 10^{3}", "2000"),
    ),
    *_pairs("number", False, (r"\frac{5}{8}", r"\frac{8}{5}"), (r"\sqrt{2}", "2"), (r"2\pi", r"\pi^2")),
    # Choices.
    *_pairs(
        "choice",
        True,
        ("B", "(B)"),
        ("b", "B"),
        ("(c)", "C"),
        ("D.", "D"),
        ("A)", "A"),
        ("option C", "C"),
        (r"\text{B}", "B"),
    ),
    *_pairs("choice", False, ("A", "B"), ("(a)", "(d)"), ("E.", "C")),
    # Yes and no.
    *_pairs("yes_no", True, ("Yes", "yes"), ("No.", "no"), ("YES!", "Yes"), ("True", "true"), ("false.", "False")),
    *_pairs("yes_no", False, ("yes", "no"), ("True", "False"), ("No.", "Yes")),
    # Dates and times.
    *_pairs(
        "text",
        True,
        ("March 5, 2021", "5 March 2021"),
        ("2021-03-05", "March 5, 2021"),
        ("Mar 5, 2021", "March 5, 2021"),
        ("Monday", "monday"),
        ("3:30 PM", "15:30"),
        ("3:30 pm", "3:30 PM"),
    ),
    *_pairs(
        "text",
        False,
        ("2021-03-05", "2021-03-06"),
        ("March 5, 2021", "May 3, 2021"),
        ("3:30 PM", "3:30 AM"),
        ("Monday", "Tuesday"),
    ),
    # Sets, tuples, intervals, expressions.
    *_pairs(
        "text",
        True,
        ("{1, 2, 3}", "{3, 1, 2}"),
        ("{1/2, 3}", "{0.5, 3}"),
        ("(4, 7)", "(4,7)"),
        ("x + 1", "1 + x"),
        ("(x+1)^2", "x^2 + 2x + 1"),
        ("x = 5", "x=5"),
        (r"[0, \infty)", r"[0,\infty)"),
    ),
    *_pairs("text", False, ("{1, 2}", "{1, 2, 3}"), ("(4, 7)", "(7, 4)"), ("[0, 1]", "(0, 1)"), ("x^2", "2x")),
    # Words.
    *_pairs(
        "text",
        True,
        ("New York", "new york"),
        ("the Nile", "The Nile"),
        ("Paris.", "Paris"),
        ("well-known", "well known"),
        (r"\text{east}", "east"),
        ("café", "cafe\u0301"),
        ("'red'", "red"),
    ),
    *_pairs("text", False, ("east", "west"), ("Paris", "Paris Hilton"), ("hot", "not hot"), ("ab", "ba")),
)

CONVENTION: tuple[Pair, ...] = (
    *_pairs(
        "number",
        False,
        ("60", "60%"),
        ("0.67", "2/3"),
        ("3 million", "3000000"),
        ("2 dozen", "24"),
        ("1.250", "1250"),
        ("90 minutes", "1.5 hours"),
        ("8 cats", "8 dogs"),
        ("3.14", r"\pi"),
        ("50 cents", "0.5"),
    ),
    *_pairs("number", True, ("0.6666667", "2/3"), ("6.2831853", r"2\pi"), ("7 = 7", "7"), ("12 or so", "12")),
    *_pairs("yes_no", True, ("yes", "True"), ("no", "0"), ("y", "yes")),
    *_pairs("choice", True, ("2", "B"), ("B: water", "B")),
    *_pairs("text", False, ("03/05/2021", "2021-03-05"), ("U.S.", "United States"), ("colour", "color")),
    *_pairs("text", True, ("1, 2, 3", "{1, 2, 3}"), ("the cat", "cat"), ("x = 5", "5")),
)


def ours(pair: Pair) -> bool | None:
    """`answers.compare`, as it is by default."""
    return compare(pair.kind, pair.answer, pair.gold)


def _math_verify(answer: str, gold: str) -> bool | None:
    import math_verify

    # Without its own time limits, which are alarms of whole seconds; none of these pairs needs them.
    expected, said = (math_verify.parse(text, parsing_timeout=0) for text in (gold, answer))
    return math_verify.verify(expected, said, timeout_seconds=0) if expected and said else None


def math_verify_default(pair: Pair) -> bool | None:
    """math-verify on the texts as they are."""
    return _math_verify(pair.answer, pair.gold)


def math_verify_latex(pair: Pair) -> bool | None:
    """math-verify on both texts in dollar signs."""
    return _math_verify(f"${pair.answer}$", f"${pair.gold}$")


def ours_then_math_verify(pair: Pair) -> bool | None:
    """As verification decides: ours, then math-verify for numbers that ours cannot read."""
    equal = ours(pair)
    return math_verify_latex(pair) if equal is None and pair.kind == "number" else equal


JUDGES: dict[str, Judge] = {
    "ours (`answers.compare`)": ours,
    "math-verify, default": math_verify_default,
    "math-verify, both sides in `$…$`": math_verify_latex,
    "ours, then math-verify for undecided numbers": ours_then_math_verify,
}


@dataclass(frozen=True, slots=True)
class Report:
    """What one judge makes of pairs, and its CPU time."""

    right: list[Pair]
    wrong: list[Pair]
    undecided: list[Pair]
    mean_ms: float
    max_ms: float

    @property
    def right_at_best(self) -> int:
        """How many are right for a caller that takes undecided as different."""
        return len(self.right) + sum(not pair.equal for pair in self.undecided)


def report(judge: Judge, pairs: Sequence[Pair]) -> Report:
    """The verdicts of one judge on all pairs, after one to warm up."""
    judge(pairs[0])
    found: dict[bool | None, list[Pair]] = {True: [], False: [], None: []}
    times_ms: list[float] = []
    for pair in pairs:
        start = time.process_time_ns()
        verdict = judge(pair)
        times_ms.append((time.process_time_ns() - start) / 1e6)
        found[None if verdict is None else verdict == pair.equal].append(pair)
    return Report(found[True], found[False], found[None], sum(times_ms) / len(times_ms), max(times_ms))


def main() -> None:
    """Print the report of every judge on both tables."""
    print(f"math-verify {version('math-verify')}, Python {platform.python_version()}; one pass, one core, CPU time.")
    for title, pairs in (
        ("with a clear verdict", CLEAR),
        ("that are convention, against the table's choice", CONVENTION),
    ):
        reports = {name: report(judge, pairs) for name, judge in JUDGES.items()}
        print(f"\n{len(pairs)} pairs {title}, {sum(pair.equal for pair in pairs)} of them equal:\n")
        print("| | right | wrong | undecided | right if undecided is different | CPU ms a pair, mean | most |")
        print("|---|---|---|---|---|---|---|")
        for name, made in reports.items():
            counts = f"{len(made.right)} | {len(made.wrong)} | {len(made.undecided)} | {made.right_at_best}"
            print(f"| {name} | {counts} | {made.mean_ms:.3f} | {made.max_ms:.1f} |")
        for name, made in reports.items():
            for outcome, failed in (("wrong", made.wrong), ("undecided", made.undecided)):
                print(f"\n{name}, {outcome}: {'; '.join(f'`{pair}`' for pair in failed) or 'none'}")


if __name__ == "__main__":
    main()
