"""Duels: a student of one run against one of another, on the test problems that both answered.

In: the predictions of the students' first seeds. Two rows are of one problem where id, question and gold answer are
equal: an id alone may name another question after a file was changed, and another gold answer is another measure.

    Duel of A's student cot and B's, greedy: 200 matched, 3 not; 15 only B has right, 3 only A
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from retort.intervals import Paired, paired
from retort.records import Prediction
from retort.report.contents import Contents
from retort.report.findings import LEVEL
from retort.report.recipes import is_bound


class Side(NamedTuple):
    """A run that is compared, and the letter that the page calls it by."""

    letter: str
    contents: Contents


class Opponent(NamedTuple):
    """A student of a run, and the thought or combiner that it is measured under."""

    side: Side
    student: str
    thought: str

    @property
    def name(self) -> str:
        """The student as sentences name it."""
        return f"{self.student} of {self.side.letter}"


Answers = Mapping[str, Prediction]
"""By problem id, those that have a gold answer."""


@dataclass(frozen=True)
class Duel:
    """Two students under one decode. `speaks` tells the duel that a sentence is made of from those of a table alone.

    `is_same` tells that both name one evaluation, so that there is nothing to compare.
    """

    one: Opponent
    other: Opponent
    task: str
    decode: str
    speaks: bool
    is_same: bool
    answers: Answers
    other_answers: Answers

    @cached_property
    def matched(self) -> list[str]:
        """Ids of the problems that both answered."""
        first, second = self.answers, self.other_answers
        return [name for name in first if name in second and _asked(first[name]) == _asked(second[name])]

    @property
    def unmatched(self) -> tuple[int, int, int]:
        """Problems that only the one answered, that only the other did, and that share nothing but their id."""
        shared = len(self.answers.keys() & self.other_answers.keys())
        return len(self.answers) - shared, len(self.other_answers) - shared, shared - len(self.matched)

    @cached_property
    def pair(self) -> Paired | None:
        """The other student's advantage over the one; None where no problem is matched."""
        if not self.matched:
            return None
        sides = self.other_answers, self.answers
        return paired(*({name: bool(said[name].is_correct) for name in self.matched} for said in sides))

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of the one and of the other, on the matched problems."""
        sides = self.answers, self.other_answers
        one, other = (sum(bool(said[name].is_correct) for name in self.matched) for said in sides)
        return one / len(self.matched), other / len(self.matched)

    @property
    def advantage(self) -> int:
        """1 where the other is surely better, -1 where the one is, 0 where interval or test leave it open."""
        pair = self.pair
        if pair is None or pair.p >= LEVEL or pair.low <= 0 <= pair.high:
            return 0
        return 1 if pair.difference > 0 else -1

    def won(self, by_other: bool) -> list[str]:
        """Ids of the matched problems that one of them alone has right."""
        sides = self.answers, self.other_answers
        winner, loser = reversed(sides) if by_other else sides
        return [name for name in self.matched if winner[name].is_correct and not loser[name].is_correct]


def _asked(prediction: Prediction) -> tuple[str, str | None]:
    return prediction.question, prediction.gold


def duels(one: Side, other: Side) -> Iterator[Duel]:
    """Every task, decode and thought that both of two opponents were measured on; what speaks for them comes first."""
    for student, opponent in opponents(one.contents, other.contents):
        said, other_said = answers(one.contents, student), answers(other.contents, opponent)
        is_same = _evaluation(one.contents, student) == _evaluation(other.contents, opponent)
        told: set[str] = set()
        for task, decode in (setting for setting in said if setting in other_said):
            first, second = said[task, decode], other_said[task, decode]
            speakers = _speaker(one.contents, student, first), _speaker(other.contents, opponent, second)
            for thoughts in dict.fromkeys([speakers, *((thought, thought) for thought in first if thought in second)]):
                both = Opponent(one, student, thoughts[0]), Opponent(other, opponent, thoughts[1])
                speaks = thoughts == speakers and task not in told
                yield Duel(*both, task, decode, speaks, is_same, first[thoughts[0]], second[thoughts[1]])
            told.add(task)


def opponents(one: Contents, other: Contents) -> list[tuple[str, str]]:
    """Students of one id; then those without a namesake, with each of their kind: taught by chains, or by labels."""
    firsts, seconds = measured(one), measured(other)
    alike = [(a, b) for a in firsts for b in seconds if one.role(a) == other.role(b)]
    return [(student, student) for student in firsts if student in seconds] + [
        (a, b) for a, b in alike if a not in seconds or b not in firsts
    ]


def measured(contents: Contents) -> list[str]:
    """The students that were evaluated, in the recipe's order."""
    return [student for student in contents.students if contents.first_run(student) in contents.stage("evaluation")]


def answers(contents: Contents, student: str) -> dict[tuple[str, str], dict[str, dict[str, Prediction]]]:
    """A student's predictions with a gold answer: by task and decode, in the recipe's order, then thought and id."""
    found: dict[tuple[str, str], dict[str, dict[str, Prediction]]] = defaultdict(lambda: defaultdict(dict))
    for row in contents.stage("evaluation")[contents.first_run(student)].records(Prediction):
        if row.is_correct is not None:
            found[row.task, row.decode][row.thought][row.problem_id] = row
    order = contents.recipe["evaluation"]["decodes"]
    tasks = [task["id"] for task in contents.recipe["task"]]
    return {key: found[key] for key in sorted(found, key=lambda key: (tasks.index(key[0]), order.index(key[1])))}


def _evaluation(contents: Contents, student: str) -> str:
    return contents.stage("evaluation")[contents.first_run(student)].id


def _speaker(contents: Contents, student: str, said: Mapping[str, object]) -> str:
    """What the recipe names first of what was measured; bounds come last, which are no method."""
    voices: Sequence[str] = [*contents.voices(student), *(thought for thought in said if not is_bound(thought))]
    return next((voice for voice in voices if voice in said), next(iter(said)))
