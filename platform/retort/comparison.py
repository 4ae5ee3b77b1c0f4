"""Comparison: students side by side. Means over seeds, and pairs of students on the same problems.

Rows in: `Score` and `Prediction` of every run of every student. Rows out, as JSON lines: `seeds.jsonl`, one a student,
task, thought and decode; `pairs.jsonl`, one a pair of students, task and decode.

    {"student": "etd", "task": "arithmetic", "thought": "fallback:pot,eot,cot", "decode": "greedy", "seeds": 3,
     "mean": 0.913, "sd": 0.012}
    {"first": "etd", "second": "cot", "task": "arithmetic", "decode": "greedy", "first_thought": "fallback:pot,eot,cot",
     "second_thought": "cot", "both_right": 168, "only_first": 15, "only_second": 3, "neither": 14, …, "p": 0.0075}
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retort.intervals import paired, spread
from retort.records import Prediction
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find

VERSION = 1


@dataclass(frozen=True)
class Measured:
    """A student, the evaluations of its runs, one a seed, and the thought or combiner that speaks for it in pairs.

    What speaks for a student is fixed by the recipe, not by the scores: the best of several on the test problems would
    be flattered.
    """

    id: str
    evaluations: Sequence[Artifact]
    speaks_for_it: str


def compare(store: Store, students: Sequence[Measured]) -> Artifact:
    """Means over seeds and paired comparisons; found, if they were made before. Pairs are of the first seeds."""
    inputs = {
        "students": [
            [student.id, student.speaks_for_it, *(made.id for made in student.evaluations)] for student in students
        ]
    }
    where = Address("comparison", VERSION, {}, inputs)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    seeds = [row for student in students for row in over_seeds(student)]
    right = {student.id: _rightness(student) for student in students}
    pairs = [
        row
        for one, other in itertools.combinations(students, 2)
        for row in in_pairs(one, other, right[one.id], right[other.id])
    ]
    files = [writer.put_lines("seeds.jsonl", seeds), writer.put_lines("pairs.jsonl", pairs)]
    return writer.commit(files, {"seeds": len(seeds), "pairs": len(pairs)})


def over_seeds(student: Measured) -> Iterator[dict[str, Any]]:
    """Mean and standard deviation of each accuracy over the student's seeds."""
    accuracies: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for evaluation in student.evaluations:
        for row in evaluation.lines("scores.jsonl"):
            accuracies[row["task"], row["thought"], row["decode"]].append(row["accuracy"])
    for (task, thought, decode), values in accuracies.items():
        mean, sd = spread(values)
        yield {
            "student": student.id,
            "task": task,
            "thought": thought,
            "decode": decode,
            "seeds": len(values),
            "mean": mean,
            "sd": sd,
        }


Rightness = Mapping[tuple[str, str], Mapping[str, bool]]
"""(task, decode) → problem id → whether the answer was right."""


def in_pairs(one: Measured, other: Measured, right_one: Rightness, right_other: Rightness) -> Iterator[dict[str, Any]]:
    """Two students on the problems that both answered, by task and decode."""
    for task, decode in sorted(right_one.keys() & right_other.keys()):
        first, second = right_one[task, decode], right_other[task, decode]
        if first.keys() & second.keys():
            yield {
                "first": one.id,
                "second": other.id,
                "task": task,
                "decode": decode,
                "first_thought": one.speaks_for_it,
                "second_thought": other.speaks_for_it,
                **asdict(paired(first, second)),
            }


def _rightness(student: Measured) -> Rightness:
    found: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for prediction in student.evaluations[0].records(Prediction):
        if prediction.thought == student.speaks_for_it and prediction.is_correct is not None:
            found[prediction.task, prediction.decode][prediction.problem_id] = prediction.is_correct
    return found
