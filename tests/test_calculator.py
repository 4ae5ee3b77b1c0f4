"""Calculator annotations: recomputed step by step, and filled in."""

import pytest

from retort.solvers import calculator


@pytest.mark.parametrize(
    ("text", "num_steps", "num_right_steps"),
    [
        ("12 + 5 = <<12+5=17>>17", 1, 1),
        ("12 + 5 = <<12+5=18>>18", 1, 0),
        ("<<12+5=17>>17 and <<17-3=15>>15", 2, 1),
        ("10/3 is <<10/3=3.33>>3.33", 1, 1),  # rounded to the digits it is written with
        ("10/3 is <<10/3=3.34>>3.34", 1, 0),
        ("half of 7 is <<7/2=3>>3", 1, 0),  # no digits behind the point: not rounded but wrong
        ("<<(2+3)*4=20>>", 1, 1),
        ("<<1,000*2=2,000>>", 1, 1),
        ("<<5*20%=1>>", 0, 0),  # what cannot be read as a plain number is no step
        ("<<x+1=3>>", 0, 0),
        ("<<1/0=5>>", 0, 0),
        ("no annotation: 12 + 5 = 18", 0, 0),
        ("<<" * 100_000, 0, 0),
        ("<<9**9**9=1>>", 0, 0),
    ],
)
def test_every_annotation_is_recomputed(text: str, num_steps: int, num_right_steps: int):
    assert calculator.check(text) == (num_steps, num_right_steps)


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("16 - 3 = <<16-3=", "16 - 3 = <<16-3=13>>"),
        ("16 - 3 = <<16-3=12", "16 - 3 = <<16-3=13>>"),
        ("16 - 3 = <<16-3", "16 - 3 = <<16-3=13>>"),
        ("<<1+1=2>>2, then <<2*3=7", "<<1+1=2>>2, then <<2*3=6>>"),
        ("16 - 3 = <<16-3=13>>13", None),
        ("16 - 3 = 13", None),
        ("<<x+1=", None),
        ("<<1/0=", None),
    ],
)
def test_an_open_annotation_is_closed_with_the_right_value(text: str, completed: str | None):
    assert calculator.complete(text) == completed


def test_the_value_of_a_solution_is_that_of_its_last_annotation():
    assert calculator.value("12 + 5 = <<12+5=17>>17 and 17 - 3 = <<17-3=14>>14 in all") == "14"
    assert calculator.value("12 + 5 = 17") is None
    assert calculator.without("12 + 5 = <<12+5=17>>17") == "12 + 5 = 17"
