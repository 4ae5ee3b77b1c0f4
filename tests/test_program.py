"""Programs: what is walked here is, to the letter, what CPython computes in the sandbox; the rest goes there."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.solvers import Outcome, program
from retort.solvers.expressions import RefusedError, tree
from retort.solvers.zygote import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def _walked(text: str) -> Outcome | None:
    """The outcome without the sandbox; None where the text is left to it."""
    try:
        return program.walk(tree(program.source(text), program.MAX_TEXT).body)
    except RefusedError:
        return None


WALKED = [
    ("apples = 12\napples = apples + 5\nans = apples", "17"),
    ("ans = 7 / 2", "3.5"),
    ("ans = 6 / 2", "3.0"),
    ("ans = 0.1 + 0.2", "0.30000000000000004"),
    ("ans = 1e22 + 1", "1e+22"),
    ("ans = -7 // 2", "-4"),
    ("ans = -7 % 3", "2"),
    ("ans = 7.5 % -2", "-0.5"),
    ("ans = -7.5 // 2", "-4.0"),
    ("ans = 2 ** 10", "1024"),
    ("ans = 2 ** -1", "0.5"),
    ("ans = -2 ** 2", "-4"),
    ("ans = 2 ** 0.5", "1.4142135623730951"),
    ("ans = 2 ** 3 ** 2", "512"),
    ("ans = 3 ** 2000", str(3**2000)),
    ("ans = -0.0", "-0.0"),
    ("ans = 1_000 * 2", "2000"),
    ("ans = 0x10 + 1", "17"),
    ("ans = round(2.5) + round(3.5)", "6"),
    ("ans = round(2.675, 2)", "2.67"),
    ("ans = round(7)", "7"),
    ("ans = int(7.9) + int(-7.9)", "0"),
    ("ans = float(3)", "3.0"),
    ("ans = abs(-3) + min(1, 2) * max(3, 4.0)", "7.0"),
    ("ans = sum([1, 2, 3.5]) / len([1, 2, 3])", "2.1666666666666665"),
    ("ans = sum((0.1, 0.2), 1)", "1.3"),
    ("ans = max([1, True])", "1"),
    ("import math\nans = math.ceil(7 / 2) + math.floor(-0.5) + math.sqrt(16)", "7.0"),
    ("from math import ceil\nans = ceil(2.1)", "3"),
    ("ans = 3 > 2", "True"),
    ("ans = not 3 > 2", "False"),
    ("ans = (3 > 2) + 1", "2"),
    ("a, b = 1, 2\na, b = b, a\nans = a - b", "1"),
    ("a = b = 3\nans = a * b", "9"),
    ("ans = 1\nans += 2\nans *= 3\nans -= 1\nans /= 4\nans **= 2\nans //= 1\nans %= 3", "1.0"),
    ("# a comment\nans = 5  # apples \\d 2or 3", "5"),
    ("'''A note.'''\nans = 5", "5"),
    ("a = 7\nif a > 5:\n    ans = 1\nelif a > 3:\n    ans = 2\nelse:\n    ans = 3", "1"),
    ("if 1 > 2:\n    ans = 1", None),
    ("ans = 1; ans = 2", "2"),
    ("print(6 * 7)", "42"),
    ("print(1)\nprint(2.50)", "2.5"),
    ("print(1)\nans = 2", "2"),
    ("print(1e999)", "inf"),
    ("x = 5", None),
    ("", None),
    ("# nothing", None),
    ("def solver():\n    a = 3\n    return a * 2\nans = solver()", "6"),
    (
        "import math\nimport numpy as np\ndef f():\n    'It.'\n    a = 7\n    return math.ceil(a / 2)\nans = f()",
        "4",
    ),
    ("def f():\n    if a > 2:\n        return 1\n    return 2\na = 3\nans = f()\na = 1\nans = ans * 10 + f()", "12"),
    ("a = 1\ndef f():\n    a = 2\n    return a\nans = f() * 10 + a", "21"),
    ("import math\nimport math\nans = math.floor(2.5)", "2"),
    ("from math import floor\ndef floor():\n    return 5\nans = floor()", "5"),
    ("def floor():\n    return 5\nfrom math import floor\nans = floor(2.5)", "2"),
    ("import numpy as np\ndef np():\n    return 5\nans = np()", "5"),
]


@pytest.mark.parametrize(("text", "value"), WALKED)
def test_plain_programs_are_walked_to_the_value_that_the_sandbox_computes(
    text: str, value: str | None, sandbox: Sandbox
):
    expected = Outcome(value, None) if value else Outcome(None, "no_answer")
    assert _walked(text) == sandbox.run(text) == program.run(text, sandbox) == expected


LEFT = [
    ("ans = 1 / 0", "raised ZeroDivisionError"),
    ("ans = 0 ** -1", "raised ZeroDivisionError"),
    ("ans = 2.0 ** 10000", "raised OverflowError"),
    ("ans = 10 ** 400 * 1.0", "raised OverflowError"),
    ("ans = x + 1", "raised NameError"),
    ("ans = sum(3)", "raised TypeError"),
    ("ans = abs(1, 2)", "raised TypeError"),
    ("ans = int(1e999)", "raised OverflowError"),
    ("ans = math.sqrt(4)", "raised NameError"),
    ("import math\nans = math.sqrt(-1)", "raised ValueError"),
    ("import math\nmath = 3\nans = math.sqrt(4)", "raised AttributeError"),
    ("max = 3\nans = max(1, 2)", "raised TypeError"),
    ("def f():\n    b = a\n    a = 2\n    return b\na = 1\nans = f()", "raised UnboundLocalError"),
    ("def f():\n    max = max(1, 2)\n    return max\nans = f()", "raised UnboundLocalError"),
    ("def f():\n    return f()\nans = f()", "raised RecursionError"),
    ("def f(x):\n    return x\nans = f()", "raised TypeError"),
    ("f = 1\ndef f():\n    return 2\nans = f + 1", "raised TypeError"),
    ("import math\ndef math():\n    return 5\nans = math.floor(2.5)", "raised AttributeError"),
    ("def math():\n    return 5\nimport math\nans = math()", "raised TypeError"),
    ("def np():\n    return 5\nimport numpy as np\nans = np()", "raised TypeError"),
    ("def print():\n    return 5\nprint(3)", "raised TypeError"),
    ("def ans():\n    return 5\nprint(3)", "not_a_number"),
    ("def f():\n    x = 1\nans = f()", "not_a_number"),
    ("ans = (-8) ** (1 / 3)", "not_a_number"),
    ("ans = [1, 2]", "not_a_number"),
    ("ans = 1, 2", "not_a_number"),
    ("ans = None", "not_a_number"),
    ("ans = max([1], [2])", "not_a_number"),
    ("return 5", "syntax"),
    ("if 1 > 2:\n    return 5\nans = 1", "syntax"),
    ("if 1 > 2:\n    x = yield\nans = 1", "syntax"),
    ("def f():\n    break\nans = 1", "syntax"),
    ("def f():\n    nonlocal x\nans = 1", "syntax"),
    ("__debug__ = 1\nans = 1", "syntax"),
    ("def __debug__():\n    return 1\nans = 1", "syntax"),
    ("if 1 > 2:\n    x.__debug__ = 1\nans = 1", "syntax"),
]


@pytest.mark.parametrize(("text", "reason"), LEFT)
def test_what_raises_or_does_not_compile_is_left_to_the_sandbox(text: str, reason: str, sandbox: Sandbox):
    assert _walked(text) is None
    assert program.run(text, sandbox) == Outcome(None, reason)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ans = 0\nfor i in range(5):\n    ans += i", "10"),
        ("n = 10\nwhile n > 3:\n    n -= 2\nans = n", "2"),
        ("ans = [1, 2, 3][1]", "2"),
        ("ans = 'Tom'", "Tom"),
        ("ans = '5' * 2", "55"),
        ("print('so:', 5)", "so: 5"),
        ("print(1, 2)", "1 2"),
        ("ans = 3 if 2 > 1 else 4", "3"),
        ("ans = 5 if 1 < 2 < 3 else 6", "5"),
        ("ans = (lambda x: x * 2)(4)", "8"),
        ("def f(x):\n    return x * 2\nans = f(4)", "8"),
        ("from fractions import Fraction\nans = Fraction(1, 3)", "1/3"),
        ("ans: int = 5", "5"),
        ("ans = 1 << 4", "16"),
        ("ans = ~4", "-5"),
        ("ans = int('5')", "5"),
        ("ans = round(5, -1000)", "0"),
        ("ans = round(1234.5678, ndigits=2)", "1234.57"),
        ("ans = 7 ** 2000 % 1000", str(7**2000 % 1000)),
        ("import math as m\nans = m.floor(2.5)", "2"),
        ("import math\nif 2 > 1:\n    ans = math.factorial(5)", "120"),
        ("ans = " + "+".join(["1"] * 300), "300"),
    ],
)
def test_other_programs_are_run_in_the_sandbox(text: str, value: str, sandbox: Sandbox):
    assert _walked(text) is None
    assert program.run(text, sandbox) == Outcome(value, None)


@pytest.mark.parametrize("text", ["ans = 1e999", "ans = -1e999 * 2", "ans = 1e999 - 1e999"])
def test_a_value_that_is_not_finite_is_no_number(text: str, sandbox: Sandbox):
    assert _walked(text) == sandbox.run(text) == Outcome(None, "not_a_number")


@pytest.mark.parametrize(
    "text",
    ["ans =", "num_t-shirts = 3", "x = ?", "  ans = 1", "ans = 1\n\0", "ans = '\ud800'", "ans = 007", "ans = (1"],
)
def test_what_is_not_python_is_said_to_be_so_without_the_sandbox(text: str, sandbox: Sandbox):
    assert program.run(text, sandbox) == sandbox.run(text) == Outcome(None, "syntax")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("ans = 1", "ans = 1"),
        ("```python\nans = 1\n```", "ans = 1"),
        ("Here:\n\n```py\na = 1\nans = a\n```\nThis prints 1.", "a = 1\nans = a"),
        ("```\nans = 1\n```\nBetter:\n```python\nans = 2\n```", "ans = 2"),
        ("```python\nans = 1\n```\nOr else:\n```python\nans = ", "ans = 1"),
        ("a = 1\nans = a\n```", "a = 1\nans = a"),
        ("\n```\nans = 1", "ans = 1"),
        ("So:\n```python\nans = 1", "ans = 1"),
        ("ans = 1  # ``` is a fence", "ans = 1  # ``` is a fence"),
        ("1. So:\n   ```python\nans = 1\n   ```\n", "ans = 1"),
        ("``````", ""),
        ("```\n```", ""),
    ],
)
def test_the_program_is_the_last_complete_block_of_a_completion(text: str, source: str):
    assert program.source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "ans = 2 ** 5000 // 2 ** 4999",
        "x = 1\n" * 1_900 + "ans = x",
        "x = 1\n" * 20_000 + "ans = x",
        "ans = " + "-" * 7_000 + "1",
        "ans = " + "(" * 150 + "1" + ")" * 150,
        "def f():\n" + "    x = 3 ** 900 * 3 ** 900\n" * 200 + "    return x\n" + "f()\n" * 500 + "ans = 1",
        "\x00\x01\x02",
        "ans = '" + "\U0001f600" * 100_000,
        "é = 5\nans = é",
    ],
    ids=str.__len__,
)
def test_hostile_text_has_an_outcome(text: str, sandbox: Sandbox):
    outcome = program.run(text, sandbox)
    assert (outcome.value is None) != (outcome.reason is None)
    assert outcome == sandbox.run(text)


NAMES = st.sampled_from("abc")
NUMBERS = st.one_of(
    st.sampled_from([*range(13), 10**17 + 1, 7**400]),
    st.integers(0, 10**20),
    st.floats(0, 100).map(lambda value: round(value, 2)),
    st.floats(0, 1e300),
).map(repr)


def _expressions() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        sign = st.sampled_from(["+", "-", "*", "/", "//", "%", "+", "-", "*", "/", "<", "=="])
        return st.one_of(
            st.builds("({} {} {})".format, inner, sign, inner),
            st.builds("({}) ** {}".format, inner, st.sampled_from(["2", "3", "0.5", "-1"])),
            st.builds("-{}".format, inner),
            st.builds("{}({})".format, st.sampled_from(["abs", "round", "int", "float"]), inner),
            st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
            st.builds("round({}, {})".format, inner, st.integers(-3, 5)),
            st.builds("sum([{}, {}])".format, inner, inner),
        )

    return st.recursive(st.one_of(NUMBERS, NAMES), larger, max_leaves=8)


STATEMENTS = st.one_of(
    st.builds("{} = {}".format, NAMES, _expressions()),
    st.builds("{} = {}".format, NAMES, _expressions()),
    st.builds("{} {}= {}".format, NAMES, st.sampled_from(["+", "-", "*", "/", "//", "%"]), _expressions()),
    st.builds("{}, {} = {}, {}".format, NAMES, NAMES, _expressions(), _expressions()),
    st.builds("if {}:\n    a = {}".format, _expressions(), _expressions()),
    st.builds("print({})".format, _expressions()),
)


def test_a_walked_program_has_the_outcome_of_the_sandbox(sandbox: Sandbox):
    ways: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None)
    @given(st.lists(STATEMENTS, max_size=6), _expressions())
    def check(statements: list[str], answer: str) -> None:
        text = "\n".join(["a = 3", "b = 2.5", "c = 7", *statements, f"ans = {answer}"])
        ran, walked = sandbox.run(text), _walked(text)
        assert walked in (None, ran)
        raised = ran.reason is not None and ran.reason.startswith("raised")
        ways["raised" if raised else "walked" if walked else "left"] += 1

    check()
    print(ways)
    assert ways["walked"] > ways.total() / 2
    assert ways["raised"] > 10
