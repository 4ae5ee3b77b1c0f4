"""Students side by side: means over seeds, and pairs on the same problems, from the evaluations that a run keeps."""

import math

from retort.comparison import Measured, compare
from retort.evaluation import Score
from retort.intervals import mcnemar
from retort.records import Prediction
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer

THOUGHTS = ("cot", "majority:cot,pot")


def evaluated(store: Store, name: str, rights: dict[str, list[bool]]) -> Artifact:
    """An evaluation artifact: whether each problem is right, by thought."""
    writer = Writer(store, Address("evaluation", 0, {"name": name}, {}))
    predictions = [
        Prediction(f"t/test/{number}", "t", thought, "greedy", "?", "1", "1", right, 1, int(right), 5)
        for thought, row in rights.items()
        for number, right in enumerate(row)
    ]
    scores = [
        {"task": "t", "thought": thought, "decode": "greedy", "accuracy": sum(row) / len(row)}
        for thought, row in rights.items()
    ]
    assert scores[0].keys() < Score.__dataclass_fields__.keys()
    files = [
        writer.put_records("predictions.parquet", Prediction, predictions),
        writer.put_lines("scores.jsonl", scores),
    ]
    return writer.commit(files, {})


def test_a_student_has_a_mean_and_a_spread_over_its_seeds(store: Store):
    runs = [
        evaluated(store, f"s{seed}", {"cot": [True] * right + [False] * (4 - right)})
        for seed, right in enumerate((4, 2, 3))
    ]
    made = compare(store, [Measured("s", runs, "cot")])
    (row,) = made.lines("seeds.jsonl")
    assert (row["student"], row["seeds"], row["mean"]) == ("s", 3, 0.75)
    assert math.isclose(row["sd"], 0.25)
    assert made.lines("pairs.jsonl") == []


def test_one_seed_has_no_spread(store: Store):
    (row,) = compare(store, [Measured("s", [evaluated(store, "s", {"cot": [True]})], "cot")]).lines("seeds.jsonl")
    assert (row["seeds"], row["sd"]) == (1, None)


def test_every_two_students_are_paired_on_what_speaks_for_them(store: Store):
    one = evaluated(store, "one", {"cot": [False] * 10, "majority:cot,pot": [True] * 9 + [False]})
    two = evaluated(store, "two", {"cot": [True] * 3 + [False] * 6 + [True]})
    three = evaluated(store, "three", {"cot": [True] * 10})
    students = [
        Measured("one", [one], "majority:cot,pot"),
        Measured("two", [two], "cot"),
        Measured("three", [three], "cot"),
    ]
    pairs = compare(store, students).lines("pairs.jsonl")
    assert [(row["first"], row["second"]) for row in pairs] == [("one", "two"), ("one", "three"), ("two", "three")]
    row = pairs[0]
    assert (row["first_thought"], row["second_thought"]) == ("majority:cot,pot", "cot")
    assert (row["both_right"], row["only_first"], row["only_second"], row["neither"]) == (3, 6, 1, 0)
    assert row["p"] == mcnemar(6, 1)


def test_pairs_are_of_the_first_seeds(store: Store):
    bad, good = (evaluated(store, name, {"cot": [right] * 6}) for name, right in (("bad", False), ("good", True)))
    other = evaluated(store, "other", {"cot": [True] * 6})
    (row,) = compare(store, [Measured("a", [bad, good], "cot"), Measured("b", [other], "cot")]).lines("pairs.jsonl")
    assert row["only_second"] == 6


def test_what_was_compared_before_is_found(store: Store):
    students = [Measured("s", [evaluated(store, "s", {"cot": [True]})], "cot")]
    assert compare(store, students) == compare(store, students)
