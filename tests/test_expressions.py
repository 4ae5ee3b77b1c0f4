"""The tree walk that programs and equations share, and exact linear arithmetic; `Machine` is in `test_program`."""

import ast
import warnings
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.solvers.expressions import MAX_BITS, MAX_WORK, Exact, Linear, RefusedError, evaluate, parse, tree

X, Y = Linear(0, {"x": 1}), Linear(0, {"y": 1})


def _exactly(text: str) -> Linear:
    return evaluate(parse(text), {"x": X, "y": Y}, Exact())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1 + 0.2", Fraction(3, 10)),
        ("2 / 3 * 3", 2),
        ("1e-3", Fraction(1, 1000)),
        ("2.5e3", 2500),
        ("2 ** -2", Fraction(1, 4)),
        ("-2 ** 2", -4),
        ("(1 / 2) ** 3", Fraction(1, 8)),
        ("1.05 ** 2", Fraction(11025, 10000)),
        ("0 ** 0", 1),
        ("abs(-3.5)", Fraction(7, 2)),
        ("ceil(7 / 2) + floor(-7 / 2)", 0),
        ("round(5 / 2) + round(7 / 2)", 6),
        ("round(2.675, 2)", Fraction(268, 100)),
        ("round(1234, -2)", 1200),
        ("sqrt(9 / 4)", Fraction(3, 2)),
        ("max(1, 2, 3) - min([1, 2, 3])", 2),
        ("max(0.5, 1 / 3)", Fraction(1, 2)),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction):
    assert _exactly(text) == Linear(value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2 * x + 3 - x / 2", Linear(3, {"x": Fraction(3, 2)})),
        ("(x + y) * 2 - y * 2", Linear(0, {"x": 2})),
        ("x - x", Linear(0)),
        ("0 * x", Linear(0)),
        ("+x ** 1", X),
        ("-(x - 5) / 0.5", Linear(10, {"x": -2})),
    ],
)
def test_linear_forms_stay_linear(text: str, form: Linear):
    assert _exactly(text) == form


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x * y", "nonlinear"),
        ("1 / x", "nonlinear"),
        ("x ** 2", "nonlinear"),
        ("2 ** x", "nonlinear"),
        ("2 ** 0.5", "nonlinear"),
        ("sqrt(2)", "nonlinear"),
        ("max(x, 1)", "nonlinear"),
        ("1 / 0", "undefined"),
        ("1 / (x - x)", "undefined"),
        ("0 ** -1", "undefined"),
        ("9 ** 9 ** 9", "too_long"),
        ("10 ** 1025", "too_long"),
        ("(10 ** 600) ** 3", "too_long"),
        ("(3 ** 1000) * (5 ** 1000) * (7 ** 1000)", "too_long"),
        ("1e999", "parse"),
        ("z", "parse"),
        ("True", "parse"),
        ("'1'", "parse"),
        ("1j", "parse"),
        ("x.real", "parse"),
        ("x[0]", "parse"),
        ("sqrt(-1)", "parse"),
        ("max()", "parse"),
        ("abs(1, 2)", "parse"),
        ("max(1, [2])", "parse"),
        ("max([[1]])", "parse"),
        ("abs(x=1)", "parse"),
        ("x(1)", "parse"),
        ("x.y(1)", "parse"),
        ("(lambda: 1)()", "parse"),
        ("__import__('os')", "parse"),
        ("1 if 2 else 3", "parse"),
        ("1 < 2", "parse"),
        ("1 << 2", "parse"),
        ("not 1", "parse"),
        ("[1]", "parse"),
        ("x := 1", "parse"),
        ("x = 1", "parse"),
        ("1; 2", "parse"),
        ("", "parse"),
        ("1 +", "parse"),
        ("1\0", "parse"),
        ("\ud800", "parse"),
        ("1" + "+1" * 260, "too_long"),
        ("-" * 400 + "1", "too_long"),
        ("(" * 41 + "1" + ")" * 41, "too_long"),
        ("(" * 400, "too_long"),
    ],
)
def test_what_is_not_covered_is_refused_with_a_reason(text: str, reason: str):
    with pytest.raises(RefusedError) as refused:
        _exactly(text)
    assert refused.value.reason == reason


def test_limits_are_not_below_what_is_needed():
    assert _exactly("1" + "+1" * 240) == Linear(241)
    assert _exactly("(" * 40 + "1" + ")" * 40) == Linear(1)
    assert _exactly("2 ** 1024 * 2 ** 1024 * 2 ** 1024 * 2 ** 1023").constant.numerator.bit_length() == MAX_BITS


@pytest.mark.parametrize("length", [9_000, 100_000])
@pytest.mark.parametrize("unit", ["-", "1+", "not ", "a.a", "1<", "lambda:", "a b ", "x;", "~", "f(x)", "[0]", "1 if "])
def test_long_text_is_refused_instead_of_killing_the_parser(unit: str, length: int):
    text = unit * (length // len(unit)) + "1"
    with pytest.raises(RefusedError):
        tree(text, 8_000)
    with pytest.raises(RefusedError):
        evaluate(parse(text, len(text)), {"a": X}, Exact())


def test_the_text_causes_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree("a = 1if 2else 3\nb = '\\d'", 100)
        assert caught == []
        ast.parse("a = 1if 2else 3\nb = '\\d'")
    assert len(caught) == 3


def test_work_is_counted_by_size():
    small, large = Exact(), Exact()
    evaluate(parse("1 + 2 + 3"), {}, small)
    evaluate(parse("3 ** 1000 + 2 + 3"), {}, large)
    assert small.work < large.work
    small.spend(MAX_WORK - small.work)
    with pytest.raises(RefusedError, match="time"):
        evaluate(parse("1 + 2"), {}, small)


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.decimals(-99, 99, places=2)), max_size=20))
def test_arithmetic_agrees_with_fractions(steps: list[tuple[str, object]]):
    text, value = "1", Fraction(1)
    for sign, number in steps:
        operand = Fraction(str(number))
        if sign == "/" and not operand:
            continue
        text = f"({text}) {sign} ({number:f})"
        match sign:
            case "+":
                value += operand
            case "-":
                value -= operand
            case "*":
                value *= operand
            case _:
                value /= operand
    assert evaluate(parse(text), {}, Exact()) == Linear(value)
