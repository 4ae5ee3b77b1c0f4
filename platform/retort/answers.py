r"""Answers: find them in text, bring them into a normal form, compare them. The only place where equality lives.

    find("number", "12 + 5 = 17 apples at $1 each. So the answer is $17.00.\n\nQ: There are …")    "$17.00"
    canonical("number", "$17.00")                                                                  "17"
    compare("number", "$17.00", "17")                                                              True

What follows the last marker wins: `#### 18`, `\boxed{18}`, `The answer is 18`, `Final Answer: 18`, or a short last
line `A: 18`. Text without a marker is an answer only as a whole (a gold field, a label-only student), never a number
picked from it, unless the caller asks for `last_number`. Recorded chains run on into an invented question: whatever
stands behind the first `\n\nQ:`, `\n\nQuestion:` or `\n\nContext:` is cut off before anything is looked for.

Numbers are exact fractions, equal within a relative tolerance of 1e-6 of the larger one. Currency and unit do not
count (`12 apples` is 12), and a scale word is a unit (`2 dozen` is 2: the question asked for dozens). 50 % is neither
50 nor 0.5. `a = b = c` says c, `3 and 4` says 3. What goes on as a time, a power or an unknown (`3:45`, `2 * x`) is
found but not read: it has no normal form, and `compare` is undecided. Yes is true, no is false. A choice is its
letter or its own text; an answer that names two letters names none.

Text is hostile: nothing is evaluated by Python, lengths are checked before anything is read, every pattern takes
linear time, no input raises. Not covered: number words, algebra, sets, dates, LaTeX beyond `\frac` of integers.
"""

import operator
import re
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from string import ascii_lowercase

from retort.records import AnswerKind

MAX_LINE = 1_000  # characters looked at behind a marker
MAX_ANSWER = 200  # characters of an answer; a longer one is not read
LARGEST = 10**60  # numerators and denominators are smaller, numbers have at most so many digits
MAX_DECIMALS = 20  # a longer decimal is written as p/q
MAX_GROUPS = 20  # pairs of parentheses, which bound the recursion

RUN_ON = re.compile(r"\n\n(?:Q|Question|Context):")
MARKER = re.compile(r"####|\\boxed\s*(?=\{)|\banswer[*_]{0,3}\s*(?:is\b|:)[\s:*_]*|^A:(?=[^\n]{0,40}\Z)", re.I | re.M)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")

SIGNS = str.maketrans("−–×·÷⁄％", "--**//%") | str.maketrans({"½": " 1/2", "¼": " 1/4", "¾": " 3/4"})
LATEX = (
    (re.compile(r"\\[dt]?frac ?\{([0-9]{1,9})\} ?\{([0-9]{1,9})\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf) ?\{([^{}]{0,60})\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\(?:left\b|right\b|[!,;:()\[\]]|(?=[$%]))"), ""),
    (re.compile(r"\{,\}"), ","),
)
SPOKEN_SIGN = re.compile(r"(?<![\d)] )\b(?:minus|negative) (?=[$€£¥]?\.?[0-9])", re.I)
HEDGED = re.compile(r"\b(?:not|between|either|neither)\b", re.I)

# What the reader takes from plain text, which has single spaces; the group is what it learns.
NUMBER_START = re.compile(r"(?:(?<!\w)[-+] ?)?(?:[$€£¥] ?-?)?(?=\(|\.?[0-9])")
SIGN = re.compile(r" ?([-+]? ?(?:[$€£¥] ?)?-?)")
OPEN, CLOSE = re.compile(r" ?(\()"), re.compile(r" ?(\))")
SYMBOLS = re.compile(r" ?([-+])"), re.compile(r" ?([*/]|[xX](?= ?[$(.0-9]))")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "x": operator.mul, "/": operator.truediv}
NUMBER = re.compile(
    r" ?(?=\.?[0-9])([0-9]{1,60} [0-9]{1,9}/[1-9][0-9]{0,8}"  # 1 1/2
    r"|(?:[0-9]{1,3}(?:,[0-9]{3}){1,19}|[0-9]{1,60})?(?:\.[0-9]{1,60})?(?:[eE][-+]?[0-9]{1,2})?)(?![0-9])"  # 1,234.5
)
PERCENT = re.compile(r" ?(%|per ?cent\b)")
GOES_ON = re.compile(  # what was read would be a part of something else
    r"\w{0,9}\d|[.,]\d|:\d| ?[-+] ?[(\d$.]| [-+] \w| ?\*(?!\*) ?[\w($.]| ?\*\* ?\d| ?\^| ?[⁰¹²³⁴-⁹]| ?/ ?[($]*\.?\d"
    r"| ?[xyz]\b| ?\\[a-z]| or [$]?\d| \d| (?:plus|minus|times|divided) "
)
UNIT = re.compile(r"[ *_$]*(?:\([^()0-9]*\)|°?[^\W\d_][^\s0-9()=]*(?: [^\s0-9()=]+){0,2})?[ .*_$]*")
LAST_NUMBER = re.compile(
    r"(?<![\w.,])(?:(?<!\))-)?[$€£¥]?(?:[0-9]+ (?=[0-9]+/))?[0-9]+(?:,[0-9]+)*(?:\.[0-9]+|/[0-9]+)?(?: ?%)?"
)

LABELS = re.compile(r"\(([a-z])\)", re.I)
FIRST_LABEL = re.compile(r"^([A-Za-z](?=[).:,]?$|[).:,]\s)|[B-HJ-Z](?=\s))")  # `B because`, but not `a house`
VERDICT = re.compile(r"\W{0,5}(?:(?:most )?\w{1,20}ly )?(yes|no|true|false)\b", re.I)
YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def find(kind: AnswerKind, text: str, *, choices: Sequence[str] = (), last_number: bool = False) -> str | None:
    """The final answer as it stands in a completion or a gold field (but for signs and LaTeX), or None.

    `last_number`: a number that no marker announces is the last one anywhere in the text.
    """
    text = RUN_ON.split(text, 1)[0].strip()
    spoken = _after_last_marker(text)
    if spoken is not None:
        return _spoken_answer(kind, spoken, choices)
    if canonical(kind, text, choices=choices) is not None:
        return text
    numbers = deque(LAST_NUMBER.finditer(text.translate(SIGNS)), maxlen=1) if last_number and kind == "number" else ()
    return numbers[0][0] if numbers else None


def canonical(kind: AnswerKind, answer: str, *, choices: Sequence[str] = ()) -> str | None:
    """The normal form that votes and equality compare on, or None for an answer that cannot be read.

    A number is a decimal, else `p/q`, with `%` where it had one; a choice is its letter, `a` for the first.
    """
    if len(answer) > MAX_ANSWER:
        return None
    match kind:
        case "number":
            reader = _Reader(_plain(answer).strip("*_ "))
            number = reader.number()
            return number if UNIT.fullmatch(reader.text, reader.position) else None
        case "choice":
            return _letter(answer, choices)
        case "yes_no":
            return YES_NO.get(_folded(answer))
        case "text":
            return _folded(answer) or None


def compare(
    kind: AnswerKind,
    answer: str,
    gold: str,
    *,
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 0.0,
    choices: Sequence[str] = (),
) -> bool | None:
    """Whether a found answer equals the found gold one: True, False, or None where either cannot be read."""
    one, other = canonical(kind, answer, choices=choices), canonical(kind, gold, choices=choices)
    if one is None or other is None:
        return None
    if one == other or kind != "number" or one.endswith("%") != other.endswith("%"):
        return one == other
    left, right = Fraction(one.rstrip("%")), Fraction(other.rstrip("%"))
    # From their digits, so that 1e-6 is a millionth and 0.333333 equals 1/3.
    relative, absolute = Fraction(repr(relative_tolerance)), Fraction(repr(absolute_tolerance))
    return abs(left - right) <= max(relative * max(abs(left), abs(right)), absolute)


def _after_last_marker(text: str) -> str | None:
    """The line behind the last marker, or what is inside the last box; None without a marker."""
    marks = deque(MARKER.finditer(text), maxlen=1)
    if not marks:
        return None
    spoken = text[marks[0].end() : marks[0].end() + MAX_LINE].strip()
    return _in_braces(spoken) if marks[0][0].startswith("\\") else spoken.partition("\n")[0]


def _in_braces(text: str) -> str:
    """What stands between the first brace and its partner; nothing where the text ends before."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:position]
    return ""


def _spoken_answer(kind: AnswerKind, spoken: str, choices: Sequence[str]) -> str | None:
    """The answer in the line behind a marker, without what the model goes on to say."""
    sentence = SENTENCE_END.split(_plain(spoken), 1)[0]
    match kind:
        case "number":
            return _spoken_number(sentence)
        case "choice":
            return next((said for said in (spoken[:MAX_ANSWER], sentence[:MAX_ANSWER]) if _letter(said, choices)), None)
        case "yes_no":
            verdict = VERDICT.match(sentence)
            return verdict and verdict[1]
        case "text":
            return spoken or None


def _spoken_number(sentence: str) -> str | None:
    """`$16 - $7 = $9 a day` says `$9`; what cannot be read is returned as it stands."""
    said = sentence.rpartition("=")[2]
    start = NUMBER_START.search(said)
    if start is None:
        return None
    before = said[: start.start()]
    if "\\" in before or HEDGED.search(before):
        return said  # the number is a part of a LaTeX term, or not what is said
    reader = _Reader(said[start.start() :])
    return reader.text[: reader.position] if reader.number() else reader.text


def _letter(answer: str, choices: Sequence[str]) -> str | None:
    """The one letter that an answer names, or whose text it is; of choices with the same text the first."""
    texts = [_folded(choice) for choice in choices[: len(ascii_lowercase)]]
    letters = ascii_lowercase[: len(texts) or None]
    folded = _folded(answer)
    if folded in texts and folded not in set(letters):
        return letters[texts.index(folded)]
    named = {letter.lower() for letter in LABELS.findall(answer) or FIRST_LABEL.findall(answer.strip())}
    if len(named) != 1 or not named <= set(letters):
        return None
    letter = named.pop()
    return letters[texts.index(texts[letters.index(letter)])] if texts else letter


def _folded(text: str) -> str:
    """Casefolded, in single spaces, without punctuation around it; lone surrogates, which no table stores, replaced."""
    encodable = text.encode("utf-8", "replace").decode()
    return " ".join(encodable.casefold().split()).strip(" .,;:!?\"'`*_")


def _plain(text: str) -> str:
    """Signs in ASCII, the commonest LaTeX as arithmetic, single spaces."""
    for pattern, plain in LATEX:
        text = pattern.sub(plain, text)
    return SPOKEN_SIGN.sub("-", " ".join(text.translate(SIGNS).split()))


def _written(value: Fraction) -> str:
    """A fraction as a decimal where that is finite and short, else as `p/q`."""
    places = next((places for places in range(MAX_DECIMALS + 1) if 10**places % value.denominator == 0), None)
    if not places:
        return str(value)
    whole, part = divmod(abs(value.numerator) * 10**places // value.denominator, 10**places)
    return f"{'-' * (value < 0)}{whole}.{part:0{places}d}"


class _Reader:
    """Reads a number or exact arithmetic from the start of a text: of `(17 + 15) / 2 apples` all but ` apples`."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def number(self) -> str | None:
        """The normal form of what stands here; afterwards `position` is where it ends."""
        value = self._calculated() if self.text.count("(", 0, MAX_ANSWER) <= MAX_GROUPS else None
        if value is None or max(abs(value.numerator), value.denominator) >= LARGEST:
            return None
        percent = self._take(PERCENT)
        return None if GOES_ON.match(self.text, self.position) else _written(value) + "%" * bool(percent)

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        """What the pattern's group matches here; the position moves behind the match."""
        match = pattern.match(self.text, self.position, MAX_ANSWER)
        self.position = match.end() if match else self.position
        return match and match[1]

    def _calculated(self, level: int = 0) -> Fraction | None:
        """A sum (level 0) of products (level 1); ends before an operator that lacks its right side or divides by 0."""
        if level == len(SYMBOLS):
            return self._operand()
        value = self._calculated(level + 1)
        while value is not None:
            before = self.position
            symbol = self._take(SYMBOLS[level])
            right = self._calculated(level + 1) if symbol else None
            if symbol is None or right is None or (symbol == "/" and right == 0):
                self.position = before
                break
            value = OPERATIONS[symbol.lower()](value, right)
        return value

    def _operand(self) -> Fraction | None:
        sign = self._take(SIGN) or ""
        is_group = self._take(OPEN) is not None
        value = self._calculated() if is_group else self._digits()
        if value is None or (is_group and self._take(CLOSE) is None):
            return None
        return -value if sign.count("-") == 1 else value

    def _digits(self) -> Fraction | None:
        digits = self._take(NUMBER)  # `1 1/2` is a sum of two parts
        return sum((Fraction(part) for part in digits.replace(",", "").split()), Fraction()) if digits else None
