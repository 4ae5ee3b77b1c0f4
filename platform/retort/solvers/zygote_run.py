"""What happens to one program inside its forked child: compile it, run it, turn what it leaves into a value.

    ans = 6 * 7             42
    print("so:", 2 / 3)     so: 0.6666666666666666
    ans = [1, 2]            not_a_number
    1 / 0                   raised ZeroDivisionError

Everything here shares one interpreter with the program, which may replace any part of it: that costs the program its
own result and nothing else. What holds it is around this process (`confinement`), not in it.
"""

import builtins
import io
import math
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import NoReturn

from retort.solvers import Outcome

MAX_TEXT = 200  # characters of a value that is text; `answers` reads no longer one
MAX_DIGITS = 4_000  # characters of a value that is a number
MAX_BITS = int(MAX_DIGITS * math.log2(10))
ANSWER = "ans"

EXCEPTIONS = {
    kind: name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
}

Reply = Callable[[Outcome], NoReturn]


class _Output(io.BytesIO):
    """What the program prints, up to a limit; what goes beyond ends the program."""

    def __init__(self, limit: int, reply: Reply) -> None:
        super().__init__()
        self._room, self._reply = limit, reply

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._room -= len(data)
        if self._room < 0:
            self._reply(Outcome(None, "output"))
        return super().write(data)


def run(text: str, output_bytes: int, plain: Callable[[object], object], reply: Reply) -> Outcome:
    """The outcome of a program. `plain` turns numbers of libraries into Python's; `reply` ends the process."""
    module = types.ModuleType("__main__")
    output = _Output(output_bytes, reply)
    sys.modules["__main__"] = module  # where dataclasses and pickle look for the program's classes
    sys.stdout = io.TextIOWrapper(output, encoding="utf-8", errors="backslashreplace", write_through=True)
    try:
        code = compile(text, "<program>", "exec")
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError):
        return Outcome(None, "syntax")  # ValueError: a NUL, a lone surrogate; MemoryError: nested too deeply
    try:
        exec(code, module.__dict__)  # noqa: S102 - what the sandbox is for
        return _value(module.__dict__, output, plain)
    except SystemExit as end:
        if end.code not in (None, 0):
            return Outcome(None, "raised SystemExit")
        return _value(module.__dict__, output, plain)
    except MemoryError:
        raise  # what holds the memory is still in reach here
    except BaseException as error:  # noqa: BLE001 - the program may raise anything; what it raised is its outcome
        return Outcome(None, f"raised {EXCEPTIONS.get(type(error), 'Exception')}")


def _value(names: dict[str, object], output: _Output, plain: Callable[[object], object]) -> Outcome:
    if ANSWER in names:
        return value(names[ANSWER], plain)
    lines = output.getvalue().decode("utf-8", "replace").split("\n")
    printed = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return _text(printed)


def value(answer: object, plain: Callable[[object], object]) -> Outcome:
    """The text of a number, a truth value or a short text; anything else is no number.

    Methods are called on the type, so that a class of the program's own is the number that it derives from, whatever
    it says of itself.
    """
    answer = plain(answer)
    match answer:
        case bool():
            return Outcome("True" if answer else "False", None)
        case str():
            return _text(str.__str__(answer))
        case int():
            text = int.__repr__(answer) if int.bit_length(answer) < MAX_BITS else ""
        case float():
            text = float.__repr__(answer) if math.isfinite(answer) else ""
        case Fraction():
            parts = answer.numerator, answer.denominator
            text = Fraction.__str__(answer) if max(map(int.bit_length, parts)) < MAX_BITS // 2 else ""
        case Decimal():
            is_short = Decimal.is_finite(answer) and abs(Decimal.adjusted(answer)) < MAX_DIGITS
            text = format(answer, "f") if is_short else ""
        case _:
            text = ""
    return Outcome(text, None) if 0 < len(text) <= MAX_DIGITS else Outcome(None, "not_a_number")


def _text(text: str) -> Outcome:
    text = text.strip()
    if not text:
        return Outcome(None, "no_answer")
    return Outcome(text, None) if len(text) <= MAX_TEXT else Outcome(None, "not_a_number")
