"""Overlap: texts that say the same. Chains that repeat each other, and training questions that tests hold too.

Artifacts of problems in; `overlap.jsonl` out, a row for each training and dev problem of a corpus:

    {"problem_id": "gsm8k/train/00017", "split": "train", "overlap": 0.25, "is_equal": false,
     "nearest": "gsm8k/test/00405"}

Words are runs of letters, numbers, or single signs, in lower case: `3 + 4=7.` and `3+4 = 7 .` are the same words, and
`3 + 4` and `3 - 4` are not. Not covered: scripts that put no space between words, and paraphrases.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from retort.records import Problem
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find

logger = logging.getLogger(__name__)
VERSION = 1
FILE = "overlap.jsonl"
QUESTION_WORDS = 8
"""Length of the n-grams of questions, as in the decontamination of PaLM's tests."""
CHAIN_WORDS = 3
"""Of those by which chains are near duplicates: long enough for order to count, short enough for one-line chains."""
WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s]")

Words = tuple[str, ...]


def words(text: str) -> Words:
    """The words of a text; two texts with the same are equal but for case, white space and the spacing of signs."""
    return tuple(WORD.findall(text.casefold()))


def ngrams(said: Words, length: int) -> list[Words]:
    """Runs of so many words, in order; of a shorter text all of it."""
    return [said[start : start + length] for start in range(max(1, len(said) - length + 1))]


def repeats(texts: Sequence[str], near_similarity: float | None = None) -> list[str | None]:
    """Of each text whether it repeats an earlier one that does not itself: `duplicate`, `near_duplicate`, or None.

    A text is a near duplicate if the Jaccard similarity of its 3-grams with those of an earlier text is at least
    `near_similarity`; None looks for equal words alone.
    """
    found: list[str | None] = []
    kept: dict[Words, frozenset[Words]] = {}
    for said in map(words, texts):
        grams = frozenset(ngrams(said, CHAIN_WORDS))
        if said in kept:
            found.append("duplicate")
        elif near_similarity is not None and any(_jaccard(grams, other) >= near_similarity for other in kept.values()):
            found.append("near_duplicate")
        else:
            found.append(None)
            kept[said] = grams
    return found


def _jaccard(one: frozenset[Words], other: frozenset[Words]) -> float:
    return len(one & other) / len(one | other)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a question shares with test questions.

    `overlap`: the share of its 8-grams (all of a shorter question) that occur in any test question. `is_equal`: one has
    the same words. `nearest`: the test problem with most of them, where an n-gram counts for the first that has it.
    """

    problem_id: str
    split: str
    overlap: float
    is_equal: bool
    nearest: str | None


def compare(questions: Iterable[Problem], tests: Sequence[Problem]) -> Iterator[Overlap]:
    """The overlap of each question with all the tests, in time that is linear in the text of both."""
    asked = [(problem, words(_text(problem))) for problem in questions]
    tested = [(problem.id, words(_text(problem))) for problem in tests]
    whole: dict[Words, str] = {}
    holders: dict[int, str] = {}  # of an n-gram's hash, which takes a tenth of its memory
    for length in {min(QUESTION_WORDS, len(said)) for _, said in asked}:
        for test_id, said in tested:
            whole.setdefault(said, test_id)
            if len(said) >= length:
                for gram in ngrams(said, length):
                    holders.setdefault(hash(gram), test_id)
    for problem, said in asked:
        grams = ngrams(said, QUESTION_WORDS)
        held = [holder for gram in grams if (holder := holders.get(hash(gram))) is not None]
        nearest = whole.get(said) or (Counter(held).most_common(1)[0][0] if held else None)
        yield Overlap(problem.id, problem.split, round(len(held) / len(grams), 6), said in whole, nearest)


def _text(problem: Problem) -> str:
    """What is read: of questions on a text the text too, since all questions on texts may be the same one."""
    return f"{problem.context} {problem.question}" if problem.context else problem.question


def measure(store: Store, asked: Sequence[Artifact], tested: Sequence[Artifact], name: str) -> Artifact:
    """The overlap of the training and dev problems of some tasks with the test problems of others; found, if made."""
    inputs = {key: sorted(made.id for made in artifacts) for key, artifacts in (("asked", asked), ("tested", tested))}
    where = Address("overlap", VERSION, {"words": QUESTION_WORDS}, inputs)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    questions = [problem for problem in _problems(asked) if problem.split != "test"]
    rows = list(compare(questions, [problem for problem in _problems(tested) if problem.split == "test"]))
    stats = {
        "problems": len(rows),
        "equal": sum(row.is_equal for row in rows),
        "half": sum(row.overlap >= 0.5 for row in rows),
    }
    logger.info(
        "overlap of corpus %s with test questions: of %d training and dev questions %d are equal to one, %d share at "
        "least half of their %d-grams",
        *(name, stats["problems"], stats["equal"], stats["half"], QUESTION_WORDS),
    )
    return writer.commit([writer.put_lines(FILE, [asdict(row) for row in rows])], stats)


def _problems(artifacts: Iterable[Artifact]) -> Iterator[Problem]:
    for artifact in artifacts:
        yield from artifact.records(Problem)


def shares(artifact: Artifact) -> Mapping[str, float]:
    """The overlap of each problem of an artifact, by id."""
    return {row["problem_id"]: row["overlap"] for row in artifact.lines(FILE)}
