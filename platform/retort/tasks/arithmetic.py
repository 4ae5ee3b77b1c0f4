"""`arithmetic`: word problems of one to four steps, made from a seed; the task of the demo and of the shipped models.

    {"id": "arithmetic/train/00000", "question": "Tom has 12 apples. He buys 5 more. He gives 3 to Ann. How many apples
     does Tom have now?", "answer": "14", "answer_kind": "number", "steps": ["12 + 5 = 17", "17 - 3 = 14"], …}

A problem's split is a function of its numbers and operations, so that train, dev and test share no arithmetic story
whatever the names and things in it. Every story knows its gold chain, program, equations and sub-questions.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from retort.records import Problem, Split
from retort.tasks.config import TaskConfig

LICENCE = "Apache-2.0, as retort, which makes the problems"
OFFICIAL_COUNTS: dict[Split, int] = {}
LARGEST = 99
NAMES = {"he": ("Tom", "Sam", "Omar", "Ivan", "Ken", "Raj"), "she": ("Ann", "Mia", "Zoe", "Lena", "Eva", "Nora")}
THINGS = ("apples", "books", "coins", "pens", "stamps", "cards", "eggs", "shells", "marbles", "cookies")
MORE = ("buys", "finds", "gets", "wins")
FEWER = ("gives away", "loses", "sells")
TIMES = {2: "doubles", 3: "triples"}

Operation = Literal["+", "-", "*", "/"]
SYMBOLS: tuple[Operation, ...] = ("+", "-", "*", "/")


class Config(TaskConfig):
    """Settings of the generated task: the numbers of problems a split, all drawn from one seed."""

    kind: Literal["arithmetic"] = "arithmetic"
    train: int = Field(default=600, ge=0, le=100_000)
    """Problems to generate for training."""
    dev: int = Field(default=100, ge=0, le=10_000)
    """Problems to generate for choosing checkpoints."""
    test: int = Field(default=200, ge=0, le=10_000)
    """Problems to generate for the reported accuracy."""
    largest: int = Field(default=LARGEST, ge=10, le=LARGEST)
    """No number of a story is larger."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class Step:
    """One operation of a story: `before operation operand = after`, and the verb that tells it."""

    before: int
    operation: Operation
    operand: int
    after: int
    verb: str

    @property
    def equation(self) -> str:
        return f"{self.before} {self.operation} {self.operand} = {self.after}"

    @property
    def told(self) -> str:
        """What happens, without the person: `buys 5 more`."""
        match self.operation:
            case "+":
                return f"{self.verb} {self.operand} more"
            case "-":
                return f"{self.verb} {self.operand}"
            case "*":
                return f"{self.verb} the number"
            case "/":
                return f"keeps one of {self.operand} equal parts"


@dataclass(frozen=True)
class Story:
    """A generated problem with everything that each thought needs."""

    name: str
    pronoun: str
    things: str
    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        return self.steps[-1].after

    @property
    def numbers(self) -> str:
        """What the story computes, apart from how it is told; decides its split."""
        return " ".join([str(self.start), *(f"{step.operation}{step.operand}" for step in self.steps)])

    @property
    def question(self) -> str:
        """The problem as it is asked."""
        told = " ".join(f"{self.pronoun.capitalize()} {step.told}." for step in self.steps)
        return f"{self.name} has {self.start} {self.things}. {told} How many {self.things} does {self.name} have now?"

    def chain_of_thought(self, rng: random.Random) -> str:
        """A gold chain in one of many wordings; sums and products may be turned round."""
        sentences: list[str] = []
        for step in self.steps:
            left, right = step.before, step.operand
            if step.operation in "+*" and rng.random() < 0.25:
                left, right = right, left
            equation = f"{left} {step.operation} {right} = {step.after}"
            wordings = (
                f"{self.pronoun.capitalize()} {step.told}: {equation}.",
                f"{self.pronoun.capitalize()} {step.told}, so {equation}.",
                f"After {self.pronoun} {step.told}, {self.name} has {equation} {self.things}.",
            )
            sentences.append(rng.choice(wordings))
        return " ".join([*sentences, f"The answer is {self.answer}."])

    def program(self) -> str:
        """Python that leaves the answer in `ans`."""
        lines = [f"{self.things} = {self.start}"]
        lines += [f"{self.things} = {self.things} {step.operation} {step.operand}" for step in self.steps]
        return "\n".join([*lines, f"ans = {self.things}"])

    def equations(self) -> str:
        """`%` comments that restate a condition, each with its `lhs = rhs` line; the last gives `ans`."""
        lines = [f"% {self.name} has {self.start} {self.things}", f"a = {self.start}"]
        for before, after, step in zip("abcd", "bcde", self.steps, strict=False):
            lines += [
                f"% {self.pronoun.capitalize()} {step.told}",
                f"{after} = {before} {step.operation} {step.operand}",
            ]
        return "\n".join([*lines, f"ans = {'abcde'[len(self.steps)]}"])

    def sub_questions(self) -> tuple[str, ...]:
        """One question a step."""
        return tuple(
            f"How many {self.things} does {self.name} have after {self.pronoun} {step.told}?" for step in self.steps
        )

    def socratic(self) -> str:
        """GSM8K's Socratic layout: `sub-question ** solution <<expression=value>>value`, then `#### answer`."""
        lines = [
            f"{question} ** {step.before} {step.operation} {step.operand} = "
            f"<<{step.before}{step.operation}{step.operand}={step.after}>>{step.after}"
            for question, step in zip(self.sub_questions(), self.steps, strict=True)
        ]
        return "\n".join([*lines, f"#### {self.answer}"])

    def problem(self, split: Split, number: int, task: str = "arithmetic") -> Problem:
        """The story as the pipeline sees it."""
        return Problem(
            id=f"{task}/{split}/{number:05d}",
            task=task,
            split=split,
            question=self.question,
            answer_kind="number",
            answer=str(self.answer),
            steps=tuple(step.equation for step in self.steps),
            sub_questions=self.sub_questions(),
        )


def _draw_step(rng: random.Random, value: int, largest: int) -> Step:
    most = min(20, largest // 2)
    while True:
        operation = rng.choices(SYMBOLS, weights=(4, 4, 1, 1))[0]
        match operation:
            case "+":
                operand, verb = rng.randint(2, most), rng.choice(MORE)
                after = value + operand
            case "-":
                operand, verb = rng.randint(2, most), rng.choice(FEWER)
                after = value - operand
            case "*":
                operand = rng.choice(tuple(TIMES))
                after, verb = value * operand, TIMES[operand]
            case "/":
                operand, verb = rng.randint(2, 5), "keeps"
                after = value // operand if value % operand == 0 else 0
        if 1 <= after <= largest:
            return Step(value, operation, operand, after, verb)


def draw(rng: random.Random, largest: int = LARGEST) -> Story:
    """One random story of one to four steps; every number in it lies in 1 … `largest`."""
    pronoun = rng.choice(tuple(NAMES))
    name, things = rng.choice(NAMES[pronoun]), rng.choice(THINGS)
    value = start = rng.randint(2, min(60, largest))
    steps: list[Step] = []
    for _ in range(rng.randint(1, 4)):
        steps.append(_draw_step(rng, value, largest))
        value = steps[-1].after
    return Story(name, pronoun, things, start, tuple(steps))


def split_of(story: Story) -> Split:
    """80 / 10 / 10 by a hash of the story's numbers."""
    bucket = hashlib.sha256(story.numbers.encode()).digest()[0] % 10
    return "test" if bucket == 9 else "dev" if bucket == 8 else "train"


def stories(split: Split, seed: int, largest: int = LARGEST) -> Iterator[Story]:
    """An endless stream of stories of one split, without repeats."""
    rng = random.Random(f"{split}/{seed}")
    seen: set[str] = set()
    while True:
        story = draw(rng, largest)
        if split_of(story) == split and story.question not in seen:
            seen.add(story.question)
            yield story


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split, in order."""
    counts: dict[Split, int] = {"train": config.train, "dev": config.dev, "test": config.test}
    for split, count in counts.items():
        for number, story in zip(range(count), stories(split, config.seed, config.largest), strict=False):
            yield story.problem(split, number, config.id)
