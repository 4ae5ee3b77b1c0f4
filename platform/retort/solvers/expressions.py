"""Expressions: the bounded tree walk that programs and equations share, over numbers that the caller brings.

    evaluate(parse("7 // 2 + a"), {"a": 0.5}, program.Machine())                     3.5
    evaluate(parse("7 / 2 + a"), {"a": Linear(0, {"x": 2})}, Exact())                Linear(7/2, {"x": 2})

Model text is never compiled or run. Its length and its brackets are checked, then Python's own parser makes a tree of
it, and the walk knows a few kinds of node. The size of a number is estimated before it is computed.

What is not covered raises `RefusedError`: attributes but a module's functions, strings, lists but as an argument, and
what is too long, too deep or too large.
"""

import ast
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, Protocol, TypeVar

MAX_BRACKETS = 40  # open at once; the parser itself gives up at 200
MAX_DEPTH = 250  # nested nodes, and so the depth of the recursion
MAX_BITS = 4_096  # of a whole number, or of either part of a fraction
MAX_EXPONENT = 1_024
MAX_WORK = 2_000  # of `Exact`: operations of one system, weighted by size; the recorded systems take at most 152

BRACKET = re.compile(r"[(\[{]|([)\]}])")
WARNED_OF = re.compile(r"[0-9]\.?[a-zA-Z]|\\")  # `1or 2` and "\d" make Python's parser warn

Number = TypeVar("Number")
Sign = ast.operator | ast.cmpop
Rational = int | Fraction


class RefusedError(Exception):
    """A text that is not covered. The reason: parse, too_long, undefined, nonlinear or time."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Arithmetic(Protocol[Number]):
    """The numbers that an expression is evaluated over. What they have no answer to, they refuse."""

    def constant(self, value: object) -> Number:
        """The number of a literal."""
        ...

    def unary(self, sign: ast.unaryop, operand: Number) -> Number:
        """`-operand` and its like."""
        ...

    def binary(self, sign: Sign, left: Number, right: Number) -> Number:
        """`left + right` and its like, comparisons among them."""
        ...

    def call(self, function: str, arguments: Sequence[Number | list[Number]]) -> Number:
        """A function (`round`, `math.floor`) of numbers, or of a list of them."""
        ...


def tree(text: str, max_length: int) -> ast.Module:
    """The syntax tree of statements, whatever they are.

    Raises:
        RefusedError: `parse` for what is not Python, `too_long` for what may be too much for the parser.
    """
    if len(text) > max_length:
        raise RefusedError("too_long")
    depth = deepest = 0
    for bracket in BRACKET.finditer(text):
        depth += -1 if bracket[1] else 1
        deepest = max(deepest, depth)
    if deepest > MAX_BRACKETS:
        raise RefusedError("too_long")
    try:
        if not WARNED_OF.search(text):
            return _parsed(text)
        with warnings.catch_warnings():  # takes as long as a short program does to parse
            warnings.simplefilter("ignore")
            return _parsed(text)
    except (SyntaxError, ValueError) as error:  # a ValueError: null characters, lone surrogates
        raise RefusedError("parse") from error
    except (MemoryError, RecursionError) as error:  # how CPython says that its parser's stack is full
        raise RefusedError("too_long") from error


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SystemError:
        # CPython 3.11: where the garbage collector happens to run inside the parser, it may lose count of its own depth
        # ("AST constructor recursion depth mismatch"). By now that garbage is gone.
        return ast.parse(text)


def parse(text: str, max_length: int = 500) -> ast.expr:
    """The syntax tree of one expression; refuses as `tree` does."""
    match tree(text, max_length).body:
        case [ast.Expr(value)]:
            return value
        case _:
            raise RefusedError("parse")


def evaluate(node: ast.expr, names: Mapping[str, Number], numbers: Arithmetic[Number], depth: int = 0) -> Number:
    """The value of an expression.

    Raises:
        RefusedError: a node, a name or a number that is not covered.
    """
    depth += 1
    if depth > MAX_DEPTH:
        raise RefusedError("too_long")
    match node:
        case ast.Name(name) if name in names:
            return names[name]
        case ast.Constant(value):
            return numbers.constant(value)
        case ast.BinOp(left, sign, right) | ast.Compare(left, [sign], [right]):
            one = evaluate(left, names, numbers, depth)
            return numbers.binary(sign, one, evaluate(right, names, numbers, depth))
        case ast.UnaryOp(sign, operand):
            return numbers.unary(sign, evaluate(operand, names, numbers, depth))
        case ast.Call(ast.Name(function), arguments, []) if function not in names:
            pass
        case ast.Call(ast.Attribute(ast.Name(module), attribute), arguments, []) if module not in names:
            function = f"{module}.{attribute}"
        case _:
            raise RefusedError("parse")
    return numbers.call(function, [_argument(argument, names, numbers, depth) for argument in arguments])


def _argument(
    node: ast.expr, names: Mapping[str, Number], numbers: Arithmetic[Number], depth: int
) -> Number | list[Number]:
    if isinstance(node, ast.List | ast.Tuple):
        return [evaluate(element, names, numbers, depth) for element in node.elts]
    return evaluate(node, names, numbers, depth)


class Linear(NamedTuple):
    """A number plus multiples of unknowns; a number where there are none. No multiple is zero."""

    constant: Rational
    terms: Mapping[str, Rational] = {}

    def times(self, factor: Rational) -> "Linear":
        """Everything multiplied."""
        if not factor or not self.terms:
            return Linear(self.constant * factor)
        return Linear(self.constant * factor, {name: value * factor for name, value in self.terms.items()})

    def plus(self, other: "Linear") -> "Linear":
        """The sum."""
        if not other.terms:
            return Linear(self.constant + other.constant, self.terms)
        terms = dict(self.terms)
        for name, value in other.terms.items():
            total = terms.pop(name, 0) + value
            if total:
                terms[name] = total
        return Linear(self.constant + other.constant, terms)

    def __str__(self) -> str:
        return " + ".join([f"({self.constant})", *(f"({value})*{name}" for name, value in self.terms.items())])


class Exact:
    """Arithmetic on linear forms with exact fractions, for one system of equations.

    Refuses `nonlinear` where the result is no such form (a product of unknowns, a root of 2), `undefined` where there
    is none (a division by zero), and `time` once its work exceeds `MAX_WORK`: that is a few milliseconds.
    """

    def __init__(self) -> None:
        self.work = 0

    def spend(self, work: int) -> None:
        """Count work; refuse the rest of it once there was too much."""
        self.work += work
        if self.work > MAX_WORK:
            raise RefusedError("time")

    def constant(self, value: object) -> Linear:
        """A literal. A decimal is what its digits say, up to the 15 that a float can tell apart."""
        match value:
            case int() if not isinstance(value, bool):
                return self.bounded(Linear(value))
            case float() if math.isfinite(value):
                return self.bounded(Linear(Fraction(*Decimal(repr(value)).as_integer_ratio())))
            case _:
                raise RefusedError("parse")

    def unary(self, sign: ast.unaryop, operand: Linear) -> Linear:
        """A sign."""
        match sign:
            case ast.USub():
                return operand.times(-1)
            case ast.UAdd():
                return operand
            case _:
                raise RefusedError("parse")

    def binary(self, sign: Sign, left: Linear, right: Linear) -> Linear:
        """Sums; products and quotients by a number; powers of numbers."""
        match sign:
            case ast.Add():
                result = left.plus(right)
            case ast.Sub():
                result = left.plus(right.times(-1))
            case ast.Mult() if left.terms and right.terms:
                raise RefusedError("nonlinear")
            case ast.Mult():
                result = left.times(right.constant) if left.terms else right.times(left.constant)
            case ast.Div() | ast.Pow() if right.terms:
                raise RefusedError("nonlinear")
            case ast.Div() if not right.constant:
                raise RefusedError("undefined")
            case ast.Div():
                result = left.times(1 / Fraction(right.constant))
            case ast.Pow():
                result = self._power(left, right.constant)
            case _:
                raise RefusedError("parse")
        return self.bounded(result)

    def call(self, function: str, arguments: Sequence[Linear | list[Linear]]) -> Linear:
        """A function of numbers that has an exact value."""
        values: list[Rational] = []
        for argument in arguments:
            forms = argument if isinstance(argument, list) and len(arguments) == 1 else [argument]
            for form in forms:
                if not isinstance(form, Linear):
                    raise RefusedError("parse")
                if form.terms:
                    raise RefusedError("nonlinear")
                values.append(form.constant)
        return self.bounded(Linear(_function(function, values)))

    def bounded(self, form: Linear) -> Linear:
        """The form itself, if its numbers are small enough; its size is added to the work."""
        for value in (form.constant, *form.terms.values()):
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            if bits > MAX_BITS:
                raise RefusedError("too_long")
            self.spend(1 + bits // 128)  # the time of an operation grows with the size of its numbers
        return form

    def _power(self, base: Linear, exponent: Rational) -> Linear:
        if exponent == 1:
            return base
        if base.terms or exponent.denominator != 1:
            raise RefusedError("nonlinear")
        if abs(exponent) > MAX_EXPONENT:
            raise RefusedError("too_long")
        value = Fraction(base.constant)
        if not value and exponent < 0:
            raise RefusedError("undefined")
        if max(value.numerator.bit_length(), value.denominator.bit_length()) * abs(exponent) > MAX_BITS:
            raise RefusedError("too_long")
        return Linear(value ** int(exponent))


def _function(name: str, values: Sequence[Rational]) -> Rational:
    match name, values:
        case "abs", [value]:
            return abs(value)
        case "floor", [value]:
            return math.floor(value)
        case "ceil", [value]:
            return math.ceil(value)
        case "round", [value]:
            return round(value)
        case "round", [value, int(digits)] if abs(digits) <= MAX_EXPONENT:
            return round(Fraction(value), digits)
        case "min", [_, *_]:
            return min(values)
        case "max", [_, *_]:
            return max(values)
        case "sum", [_, *_]:
            return sum(values)
        case "sqrt", [value] if value >= 0:
            root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
            if root * root == value:
                return root
            raise RefusedError("nonlinear")
        case _:
            raise RefusedError("parse")
