"""Finding, normalising and comparing answers; what the recorded corpora say is in `data_tests`."""

import operator
import typing
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.answers import MAX_ANSWER, canonical, compare, find
from retort.records import AnswerKind

KINDS: tuple[AnswerKind, ...] = typing.get_args(AnswerKind)
CHOICES = ("park", "St. Louis", "a house", "math problem", "10–20", "u.s", "vitamin (a)")


@pytest.mark.parametrize(
    ("text", "found", "normal"),
    [
        ("So he makes 9 * 2 = 18 dollars.\n#### 18", "18", "18"),
        ("He has 9 left.\nA: 1,234", "1,234", "1234"),
        ("The answer is 18.", "18", "18"),
        ("the ANSWER IS: 18", "18", "18"),
        ("So the final answer is\n\n18", "18", "18"),
        ("**Final Answer:** **18** apples", "18", "18"),
        ("The answer is 7. No, the answer is 8.\n\nQ: An invented question?\nA: The answer is 9.", "8", "8"),
        ("Answer: \\boxed{104}.", "104", "104"),
        ("is $\\boxed{\\text{about }\\frac{3}{4}}$", "3/4", "0.75"),
        ("\\boxed{1\\frac{1}{2}}", "1 1/2", "1.5"),
        ("The answer is \\$1{,}234.50", "$1,234.50", "1234.5"),
        ("The answer is $ 1", "$ 1", "1"),
        ("The answer is -$5.", "-$5", "-5"),
        ("The answer is $-5.", "$-5", "-5"),
        ("The answer is −5.", "-5", "-5"),
        ("The answer is minus Room-5", "5", "5"),
        ("The answer is 3/4 of a cup.", "3/4", "0.75"),
        ("The answer is 1/3.", "1/3", "1/3"),
        ("The answer is 1 1/2 cups.", "1 1/2", "1.5"),
        ("The answer is 1½.", "1 1/2", "1.5"),
        ("The answer is 50%.", "50%", "50%"),
        ("The answer is 12.50 percent.", "12.50 percent", "12.5%"),
        ("The answer is 1e3.", "1e3", "1000"),
        ("The answer is .5", ".5", "0.5"),
        ("The answer is 12 apples and 3 pears.", "12", "12"),
        ("The answer is 40 miles/hour.", "40", "40"),
        ("The answer is $4200 / hour.", "$4200", "4200"),
        ("The answer is 5 p.m.", "5", "5"),
        ("The answer is 2 dozen eggs.", "2", "2"),
    ],
)
def test_a_number_is_found_behind_the_last_marker(text: str, found: str, normal: str):
    assert find("number", text) == found
    assert canonical("number", found) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The answer is (84 / 2).", "42"),
        ("The answer is ((6 - 2) - (9 - 3)).", "-2"),
        ("The answer is (9 - (-3)).", "12"),
        ("The answer is (31 * 6) / 4.", "46.5"),
        ("The answer is 2 x 3 × 4.", "24"),
        ("The answer is 11 - (-33) = 11 + 33 = 44.", "44"),
        ("The answer is 5 shelves * 8.5 books = 42.5 books a room.", "42.5"),
        ("The answer is x = 27 - 7 = 20.", "20"),
        ("( ( 17.0 + 15.0 ) + 2.0 )", "34"),
    ],
)
def test_arithmetic_is_calculated_exactly(text: str, normal: str):
    assert canonical("number", find("number", text) or "") == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The answer is minus 3.", "-3"),
        ("The answer is negative $3.50.", "-3.5"),
        ("The answer is 8 - minus 3.", "11"),
        ("The answer is 12 minus 5.", None),  # spoken arithmetic is not read
    ],
)
def test_a_spoken_sign_is_a_sign(text: str, normal: str | None):
    found = find("number", text)
    assert found is not None
    assert canonical("number", found) == normal


@pytest.mark.parametrize("layout", ["Question", "Context", "Q"])
def test_an_invented_next_question_has_no_say(layout: str):
    assert find("number", f"The answer is 14.\n\n{layout}: Another?\nThe answer is 3.") == "14"


@pytest.mark.parametrize(
    "said",
    [
        "(some - 25)",
        "((8 figures + 10 cabinets) * 4)",
        "((9 - 4",
        "(9, 9)",
        "2 * 33 - 2 * x",
        "27x + 195",
        "5 / 0",
        "(1 / (2 - 2))",
        "2**3",
        "10^6",
        "6 * 10⁴",
        "2\\sqrt{3}",
        "7 or 8",
        "1 234",
        "not 7",
        "between 6 and 8",
        "3:45 pm",
        "1,2345",
        "12,30",
        "1E400",
        "9e99 * 9e99",
        "1" * 61,
        "1 + " * 60 + "1",
        "(" * 21 + "1" + ")" * 21,
    ],
)
def test_what_goes_on_as_something_else_is_found_and_left_undecided(said: str):
    assert find("number", f"The answer is {said}.") == said
    assert canonical("number", said) is None
    assert compare("number", said, "5") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "He had 5 and ate 3, so 2 are left.",
        "The answer is unknown.",
        "The answer is 5. So the answer is",
        "The answer is \\boxed{5",
        "A: Tom has 5 apples and Ann has 3 more apples than him.",
        "Q: one\n\nQ: two\nThe answer is 5.",
    ],
)
def test_no_number_is_picked_from_text_that_announces_none(text: str):
    assert find("number", text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("76 - 25 = 51 dollars.", "51"),
        ("So he is $5 short, that is -$5.", "-$5"),
        ("It takes 1,250 steps, and then he rests", "1,250"),
        ("So 3/4 remain, or 1 1/2 cups", "1 1/2"),
        ("In 2020 15 apples", "15"),
        ("from 10-20", "20"),
        ("The answer is 4. He had 9", "4"),
        ("no digits", None),
    ],
)
def test_the_last_number_counts_where_asked_for_and_nothing_is_announced(text: str, found: str | None):
    assert find("number", text, last_number=True) == found
    assert found is None or canonical("number", found) is not None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("So the answer is (d) math problem.", "d"),
        ("The answer is B.", "b"),
        ("The answer is B because of it", "b"),
        ("\\boxed{\\text{A}}", "a"),
        ("The answer is a house.", "c"),
        ("The answer is St. Louis.", "b"),
        ("The answer is Math  problem. It is not a park.", "d"),
        ("10–20", "e"),
        ("u.s.", "f"),
        ("Vitamin (A)", "g"),
        ("The answer is (h).", None),
        ("The answer is either (a) park or (b) St. Louis.", None),
        ("The answer is a matter of taste.", None),
        ("A park has a house.", None),
    ],
)
def test_a_choice_is_its_letter_or_its_text(text: str, letter: str | None):
    found = find("choice", text, choices=CHOICES)
    assert (found and canonical("choice", found, choices=CHOICES)) == letter


def test_choices_with_the_same_text_are_equal():
    choices = ("late payment", "retreat", "late payment")
    assert compare("choice", "(c) late payment", "late payment", choices=choices) is True
    assert compare("choice", "(c)", "a", choices=choices) is True


def test_letters_need_no_choices():
    assert compare("choice", "(B)", "b.") is True
    assert compare("choice", "(A)", "B") is False


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is yes.", "yes"),
        ("The answer is probably no, but who knows.", "no"),
        ("The answer is **True**.", "yes"),
        ("\\boxed{\\text{No}}", "no"),
        ("false", "no"),
        ("Yes.", "yes"),
        ("The answer is not yes.", None),
        ("The answer is unknown.", None),
        ("Yes, frost is common.", None),
    ],
)
def test_yes_and_true_are_one_answer_and_no_and_false_the_other(text: str, answer: str | None):
    found = find("yes_no", text)
    assert (found and canonical("yes_no", found)) == answer


def test_text_is_equal_apart_from_case_spaces_and_punctuation_around_it():
    assert find("text", 'The answer is "New  York".') == '"New  York".'
    assert compare("text", '"New  York".', "new york") is True
    assert compare("text", "New York", "Newark") is False
    assert compare("text", "...", "New York") is None


@pytest.mark.parametrize(
    ("answer", "gold", "is_equal"),
    [
        ("$1,234.50", "1234.5", True),
        ("3/4", "0.75", True),
        ("1.5", "1 1/2", True),
        ("1e3", "1000", True),
        ("1e-3", "0.001", True),
        ("−7", "-7", True),
        ("12 apples", "12", True),
        ("9 (pieces of candy)", "9", True),
        ("$18 per day", "18", True),
        ("18.", "18.0", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.33333", False),
        ("1000000", "1000001", True),
        ("100000", "100001", False),
        ("0", "0.0000001", False),
        ("5", "-5", False),
        ("50%", "50 percent", True),
        ("50%", "50", False),
        ("50%", "0.5", False),
        ("9 (years); 10 (years)", "9", None),
        ("\\sqrt{2}", "1.4142", None),
        ("one dozen", "12", None),
    ],
)
def test_numbers_are_compared_by_value(answer: str, gold: str, is_equal: bool | None):
    assert compare("number", answer, gold) is is_equal
    assert compare("number", gold, answer) is is_equal


def test_the_tolerance_is_relative_and_can_be_none():
    assert compare("number", "99.95", "100", relative_tolerance=1e-3) is True
    assert compare("number", "1000000", "1000001", relative_tolerance=0) is False


HOSTILE = {
    "digits": "9" * 5_000,
    "nested": "(" * 5_000 + "1" + ")" * 5_000,
    "minus signs": "-" * 300_000,
    "hashes": "#" * 300_000,
    "markers": "answer is " * 30_000,
    "open boxes": "\\boxed{" * 40_000,
    "blank lines": "\n" * 300_000 + "x",
    "blank tail": "answer" + " " * 300_000 + "x",
    "short last lines": "A:\n" * 100_000,
    "long last line": "\nA:" + " " * 300_000 + "x",
    "commas": "1," * 150_000,
    "mixed numbers": "1 " * 150_000 + "1/",
    "fractions": "\\frac{" * 50_000,
    "sum": "1+" * 150_000 + "1",
    "sentences": "a. " * 100_000,
    "other scripts": "答案是五。 الجواب هو ٥ उत्तर ५ है " * 5_000,
    "control characters": "\x00\x01\x1b[31m\x85\u2028" * 20_000,
    "lone surrogates": "\ud800\udfff" * 50_000,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_raises_nor_hangs(kind: AnswerKind, name: str):
    for text in (HOSTILE[name], f"The answer is {HOSTILE[name]}", f"\\boxed{{{HOSTILE[name]}}}"):
        found = find(kind, text, choices=CHOICES, last_number=True)
        normal = canonical(kind, found or text, choices=CHOICES)
        assert normal is None or len(normal.encode()) <= 4 * MAX_ANSWER


FRAGMENTS = [
    *(
        "The answer is ",
        "#### ",
        "\\boxed{",
        "}",
        "\nA: ",
        "\n\nQ:",
        "\\frac{1}{2}",
        "\\text{",
        "yes",
        "no",
        "(a)",
        "B.",
    ),
    *("$", "%", "-", "+", "*", "/", "=", "(", ")", ",", ".", ":", "^", "x", "e", "E", " ", "\n", "½", "−", "×", "**"),
    *(
        "0",
        "00",
        "5",
        "12",
        "1,234",
        "3.50",
        "1 1/2",
        "9" * 60,
        "e99",
        "e-99",
        " apples",
        "park",
        "St. Louis",
        "ſ",
        "İ",
    ),
]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
ANSWER_LIKE = st.lists(st.sampled_from(FRAGMENTS) | ANY_TEXT, max_size=12).map("".join)
LISTS_OF_CHOICES = st.sampled_from([(), CHOICES, ("b", "a"), ("same", "same"), ("", "x")])


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(KINDS), ANSWER_LIKE, LISTS_OF_CHOICES, st.booleans())
def test_any_text_has_a_stable_normal_form_or_none(
    kind: AnswerKind, text: str, choices: tuple[str, ...], last_number: bool
):
    found = find(kind, text, choices=choices, last_number=last_number)
    for answer in (text, found or ""):
        normal = canonical(kind, answer, choices=choices)
        if normal is None:
            assert compare(kind, answer, "1", choices=choices) is None
        else:
            normal.encode()
            assert canonical(kind, normal, choices=choices) == normal
            assert compare(kind, normal, normal, choices=choices) is True
            assert compare(kind, answer, normal, choices=choices) is True


@settings(deadline=None)
@given(st.fractions(max_denominator=10**9))
def test_a_normal_form_is_the_exact_number(value: Fraction):
    assert Fraction(canonical("number", str(value)) or "") == value


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
Sum = tuple[str, Fraction]


def _joined(parts: tuple[Sum, str, Sum]) -> Sum:
    (left, one), symbol, (right, other) = parts
    if symbol == "/" and other == 0:
        symbol = "+"
    return f"({left} {symbol} {right})", OPERATIONS[symbol](one, other)


SUMS = st.recursive(
    st.integers(0, 999).map(lambda number: (str(number), Fraction(number))),
    lambda sums: st.tuples(sums, st.sampled_from("+-*/"), sums).map(_joined),
    max_leaves=8,
)


@settings(deadline=None)
@given(SUMS)
def test_arithmetic_agrees_with_exact_fractions(written_and_value: Sum):
    written, value = written_and_value
    assert find("number", f"So the answer is {written}.") == written
    assert Fraction(canonical("number", written) or "") == value
