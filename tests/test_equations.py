"""Equations: what is read, how it is solved, and that hostile text ends with a reason."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.answers import canonical
from retort.solvers import Outcome, equations
from retort.solvers.zygote import Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


class NoSandbox(Sandbox):
    """Says that it was asked, and starts nothing."""

    def solve(self, equations: object, unknown: str) -> Outcome:
        del equations, unknown
        return Outcome(None, "asked")


def _solved(*lines: str) -> Outcome:
    return equations.solve("\n".join(lines), NoSandbox())


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ans = 3 + 4 * 2", "11"),
        ("ans = 7 / 2", "7/2"),
        ("ans = 0.1 + 0.2", "3/10"),
        ("ans = .5 + 5. + 007", "25/2"),
        ("ans = 1e3 + 2.5E-1", "4001/4"),
        ("ans = 2^3 ^2", "512"),
        ("ans = 2**3", "8"),
        ("ans = -2^2", "-4"),
        ("ans = $1,234.50 - 34.5", "1200"),
        ("ans = \\$5 + €3", "8"),
        ("ans = 1,000,000 / 1000", "1000"),
        ("ans = 20%", "1/5"),
        ("ans = 100 / 20%", "500"),
        ("ans = 20 % of 50 + 1", "11"),
        ("ans = 10 * (100% - 20%)", "8"),
        ("ans = 3(10) + (2)(3)", "36"),
        ("ans = 5 − 3 × 2 ÷ 4", "7/2"),
        ("ans = ½ * 10", "5"),
        ("ans = [3 + (2 * 4)] * 2", "22"),
        ("ans == 5", "5"),
        ("5 = ans", "5"),
        ("ans = 5;", "5"),
        ("ans = 5.", "5"),
        ("  ans=5  ", "5"),
        ("ans = 5 # apples", "5"),
        ("ans = 14 % He buys 14 = more", "14"),
        ("ans = 3 * 5280 %convert miles to feet", "15840"),
        ("ans = max(3, 4) + min(1, 2, 0.5)", "9/2"),
        ("ans = ceil(2.1) + floor(2.9) + round(2.5) + abs(-1) + sqrt(16)", "12"),
        ("ans = math.ceil(7 / 2)", "4"),
        ("ans = round(2.675, 2)", "67/25"),
        ("ans = x = 5", "5"),
        ("ans = " + "9" * 60, "9" * 60),
    ],
)
def test_an_expression_is_read(line: str, value: str):
    assert _solved(line) == Outcome(value, None)
    assert canonical("number", value) is not None


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["apples = 12", "ans = apples + 5"], "17"),
        (["ans = b + 1", "b = a * 2", "a = 3"], "7"),
        (["total = rate * hours", "rate = 5", "hours = 3", "ans = total"], "15"),
        (["a = x", "3x + 2 = 11", "ans = a"], "3"),
        (["2 total_cost = 10", "ans = total_cost"], "5"),
        (["2(x + 1) = 10", "ans = x"], "4"),
        (["(1 + 1)x = 10", "ans = x"], "5"),
        (["a + b = 10", "a - b = 4", "ans = a"], "7"),
        (["x + y + z = 6", "x - y = 1", "y - z = 1", "ans = 100x + 10y + z"], "321"),
        (["sale = x - 20% of x", "sale = 80", "ans = x"], "100"),
        (["a = b = 150", "ans = a + b"], "300"),
        (["p = q = r - 10 = s + 20", "p = 50", "ans = p + q + r + s"], "190"),
        (["x = 5", "5 = x", "x + 0 = 5", "ans = x"], "5"),
        (["class = 5", "lambda = class + 1", "None = 2", "ans = lambda * None"], "12"),
        (["__class__ = 3", "__import__ = 4", "ans = __class__ + __import__"], "7"),
        (["max = 3", "e = 2", "pi = 1", "ans = max + e + pi"], "6"),
        (["total_M&Ms = 5", "3rd_day = 4", "40_percent = 3", "ans = total_M&Ms + 3rd_day + 40_percent"], "12"),
        (["größe = 5", "ans = größe"], "5"),
        (["% a comment = 5", "# x = 1", "// y = 2", "", "Prose of any kind.", "a <= 5", "b > 3 = c", "ans = 1"], "1"),
        (["x = y", "z = w", "ans = 5"], "5"),
        (["x * y = 6", "ans = 5"], "5"),
        (["1 / x = 1 / 4", "x = 4", "ans = x"], "4"),
        (["x * y = 6", "x + y = 5", "x - y = 1", "ans = x"], "3"),
    ],
)
def test_a_system_is_solved_exactly(lines: list[str], value: str):
    assert _solved(*lines) == Outcome(value, None)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["x = 1", "x = 2", "ans = x"], "2"),
        (["x = 1", "x = x + 1", "x = x * 3", "ans = x"], "6"),
        (["x = 1", "y = x", "x = 2", "ans = 10x + y"], "21"),
        (["x = n", "y = x", "x = x + 1", "n = 5", "ans = 10x + y"], "65"),
        (["p = q * r", "p = p + 1", "q = 2", "r = 3", "ans = p"], "7"),
        (["y = n", "n = 5", "n = 7", "ans = 10y + n"], "57"),
        (["ans = 1", "ans = 2"], "2"),
        # One that holds together is a system, and no program.
        (["sale = 0.75 * price", "sale = 30", "ans = price"], "40"),
        (["x = 2x - 5", "ans = x"], "5"),
    ],
)
def test_a_contradiction_is_read_as_assignment_and_the_last_wins(lines: list[str], value: str):
    assert _solved(*lines) == Outcome(value, None)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["a = 5"], "no_answer"),
        (["ans1 = 5", "my_ans = 3", "answer = 4"], "no_answer"),
        (["ans: 5", "The ans is 5"], "no_answer"),
        ([], "no_answer"),
        (["% ans = 5"], "no_answer"),
        (["ans = x"], "symbolic"),
        (["ans = x + 1", "x = y"], "symbolic"),
        (["ans = 5 apples"], "symbolic"),
        (["ans = max(x / 40, y / 30)"], "symbolic"),
        (["x * y = 26", "ans = x + z"], "symbolic"),
        (["1 / x = 5 / y", "y = 5x", "ans = y"], "symbolic"),
        (["x + 1 = x", "ans = x"], "no_solution"),
        (["1 = 2", "ans = 5"], "no_solution"),
        (["a + b = 1", "a + b = 2", "ans = a"], "no_solution"),
        (["ans = 1 / 0"], "no_solution"),
        (["ans = 1 / x", "x = 0"], "no_solution"),
        (["p = q * r", "p = 5", "q = 2", "r = 3", "ans = 1"], "no_solution"),
        (["ans = 10 ** 60"], "too_long"),
        (["ans = 1 / 10 ** 60"], "too_long"),
        (["ans = = 5"], "parse"),
        (["ans ="], "parse"),
        (["= 5", "ans = 1"], "parse"),
        (["ans = 3 +"], "parse"),
        (["ans = 1 2"], "parse"),
        (["ans = 1.2.3"], "parse"),
        (["ans = 14 % 12"], "parse"),
        (["ans = x%", "x = 5"], "parse"),
        (["ans = (3 = 3)"], "parse"),
        (["ans = (1"], "parse"),
        (["ans = 1)"], "parse"),
        (["ans = 3, 4"], "parse"),
        (["ans = max(1,234)"], "parse"),
        (["ans = {5}"], "parse"),
        (["ans = 5!"], "parse"),
        (["ans := 5"], "parse"),
        (["ans = '5'"], "parse"),
        (["ans = 3:45"], "parse"),
        (["ans = two apples"], "parse"),
        (["ans = f(5)"], "parse"),
        (["ans = __import__('os').system('true')"], "parse"),
        (["The sum is a + b = 5.", "ans = 5"], "parse"),
        (["if a < 5", "ans = 1", "end"], "parse"),
        (["for i = 1", "ans = 1"], "parse"),
        (["ans = a.b"], "parse"),
        (["ans = 1e999"], "parse"),
        (["ans = ²"], "parse"),
    ],
)
def test_what_has_no_answer_has_a_reason(lines: list[str], reason: str):
    assert _solved(*lines) == Outcome(None, reason)


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["x^2 = 49", "x > 0", "ans = x"], ("7", None)),
        (["w * h = 50", "h = 2w", "ans = h"], ("10", None)),
        (["1 / x + 1 / (2x) = 1 / 6", "ans = x / 3"], ("3", None)),
        (["100 * 1.1^n = 121", "ans = n"], ("2", None)),
        (["x^2 = 2", "ans = x"], ("1.4142135623730951", None)),
        (["count = 4", "count = count * n", "count * n = 36", "class = n", "ans = class"], ("3", None)),
        (["(x - 1) * (x - 2) = 0", "ans = x"], (None, "several_solutions")),
        (["x^2 = -1", "ans = x"], (None, "no_solution")),
        (["x * y = 6", "ans = x"], (None, "symbolic")),
        (["share = 40% of price / (2 price)", "ans = share"], ("1/5", None)),
        (["a = b * b", "b = a * a", "a > 0", "ans = a"], ("1", None)),
    ],
)
def test_what_is_not_linear_is_solved_in_the_sandbox(
    lines: list[str], outcome: tuple[str | None, str | None], sandbox: Sandbox
):
    assert _solved(*lines).reason == "asked"
    assert equations.solve("\n".join(lines), sandbox) == Outcome(*outcome)


HOSTILE = {
    "a tower of powers": ("x = 9**9**9\nans = x", "too_long"),
    "a tower beside an unknown": ("y = x * x\n9**9**9 = 1\nans = y", "too_long"),
    "a function that is none": ("sin(x) = x**x\nans = x", "parse"),
    "ten thousand lines": ("\n".join(f"x{i} = {i}" for i in range(10_000)), "too_long"),
    "sixty-five equations": ("ans = 1\n" * 65, "too_long"),
    "many long lines": (("ans = 1" + " + 1" * 50 + "\n") * 30, "too_long"),
    "a cycle of 50 unknowns": ("\n".join(f"x{i} = x{(i + 1) % 50} + {i}" for i in range(50)) + "\nans = x0", "time"),
    "50 unknowns, three in each": (
        "\n".join(f"x{i} = 2x{(i + 1) % 50} + 3x{(i * 7 + 3) % 50} + {i}" for i in range(50)) + "\nans = x0",
        "time",
    ),
    "18 unknowns, all in each": (
        "\n".join("+".join(f"{i * j % 13 + 1}x{j}" for j in range(18)) + f"={i}" for i in range(18)) + "\nans = x0",
        "time",
    ),
    "a product of large fractions": (
        "\n".join(f"a{i} = 1.{i:02}7^60" for i in range(60)) + "\nans = " + "*".join(f"a{i}" for i in range(50)),
        "too_long",
    ),
    "squares of squares": ("a = 1/3\n" + "\n".join(f"a = a*a + 1/{i}" for i in range(3, 60)) + "\nans = a", "too_long"),
    "assigned to itself": ("x = x * x\n" * 60 + "ans = x", "time"),
    "60 products": ("\n".join(f"x{i} * x{i + 1} = {i}" for i in range(60)) + "\nans = x0", "asked"),
    "an unknown beside many signs": ("x * y = " + "-" * 110 + "z\nans = x", "asked"),
    "a chain": ("ans " + "= ans " * 100, "too_long"),
    "5,000 digits": ("x = " + "9" * 5_000 + "\nans = x", "too_long"),
    "400 digits": ("x = " + "9" * 400 + "\nans = x", "too_long"),
    "deep brackets": ("ans = " + "(" * 50 + "1" + ")" * 50, "too_long"),
    "deeper brackets": ("ans = " + "(" * 240 + "1" + ")" * 240, "too_long"),
    "open brackets": ("ans = " + "(" * 490, "too_long"),
    "many signs": ("ans = " + "-" * 400 + "1", "too_long"),
    "a null": ("ans = 1\x00", "parse"),
    "control characters": ("ans = \x01\x07\x1b[0m", "parse"),
    "a lone surrogate": ("ans = \ud800", "parse"),
    "a lone surrogate in a comment": ("% \ud800\nans = x", "symbolic"),
    "the other direction": ("ans = \u202e5", "parse"),
    "eight megabytes": ("ans = 1\n" * 1_000_000, "too_long"),
    "a megabyte of percent": ("%" * 1_000_000, "too_long"),
    "a page of percent": ("ans = " + "% " * 200, "parse"),
    "a page of spaces": ("ans = 1" + " " * 15_000 + "x", "too_long"),
    "a page of nothing": ("\n" * 15_999, "no_answer"),
    "a page of equals": ("=" * 450, "too_long"),
    "a page of zeros": ("ans = x + " + "0" * 450 + "1", "symbolic"),
    "a page of commas": ("ans = 1" + ",111" * 110 + "x", "symbolic"),
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_ends_with_a_reason(text: str, reason: str):
    assert equations.solve(text, NoSandbox()) == Outcome(None, reason)


@pytest.mark.parametrize(
    "text",
    [
        "x^50 + y^50 = 1\nx^49 * y + x = 3\nans = x",
        "x^x = 100\nx^y + y^x = 7\nans = y",
        "x * x = 9**9**9\nans = x",
        "\n".join(f"x{i + 1} = x{i} * x{i} + x{i}" for i in range(60)) + "\nx60 = 5\nans = x0",
    ],
)
def test_what_is_hostile_in_the_sandbox_ends_too(text: str):
    with Sandbox(Limits(timeout_s=1)) as sandbox:
        outcome = equations.solve(text, sandbox)
    assert outcome.value is None
    assert outcome.reason in equations.REASONS


@given(st.text(alphabet="ax12.,%$^*/+-=()<>#& \n\\²�٣", max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_has_an_outcome(text: str):
    outcome = equations.solve(text + "\nans = a", NoSandbox())
    assert outcome.value is None or canonical("number", outcome.value) is not None
    assert (outcome.reason is None) if outcome.value else outcome.reason in (*equations.REASONS, "asked")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_solution_of_a_random_system_is_found_in_any_order(data: st.DataObject):
    values = data.draw(st.lists(st.fractions(-9, 9, max_denominator=4), min_size=1, max_size=5))
    lines: list[str] = []
    for number in range(len(values)):
        # Each equation has one unknown more than those before: the system is triangular and has one solution.
        factors = [*data.draw(st.lists(st.integers(-3, 3), min_size=number, max_size=number)), 1]
        total = sum((factor * value for factor, value in zip(factors, values, strict=False)), Fraction())
        lines.append(" + ".join(f"({factor})u{index}" for index, factor in enumerate(factors)) + f" = {total}")
    lines = data.draw(st.permutations([*lines, f"ans = u{len(values) - 1}"]))
    assert _solved(*lines) == Outcome(str(values[-1]), None)
