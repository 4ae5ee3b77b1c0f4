"""Programs: a completion that holds Python in, what the program leaves in `ans` (or prints last) or the reason out.

    eggs = 16 - 3 - 4
    ans = eggs * 2 / 3                    6.0

Most programs that models write are straight lines of arithmetic: these are walked here (`expressions`), many times
faster than the sandbox, and with CPython's own numbers, so that the value is the same text. Covered are numbers,
assignments, `+ - * / // % **`, comparisons, `if`, a few functions, `import math`, one number printed, and functions
without parameters (zero-shot prompts ask for `def solver():`). All else, and what would raise, the sandbox runs.

This process neither compiles nor runs the text. Reasons: those of the sandbox, `zygote.RUN_REASONS`.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from retort.solvers import Outcome
from retort.solvers.expressions import MAX_BITS, RefusedError, Sign, evaluate, tree
from retort.solvers.zygote import Sandbox

MAX_TEXT = 8_000  # characters of a program that is tried here; the recorded ones have at most 2,238
MAX_DIGITS = 400  # asked of `round`, which computes a power of ten of any size
MAX_CALLS = 10  # of its own functions
MAX_PRINTED = 200  # characters of a printed answer
ANSWER = "ans"
FENCE = "```"
MATH: dict[str, Callable[..., object]] = {
    function.__name__: function for function in (math.ceil, math.floor, math.sqrt)
}

# What may stand in a branch or a function, where it may not be reached: nothing that only the compiler would refuse.
HARMLESS = (
    *(ast.If, ast.Assign, ast.AugAssign, ast.Expr, ast.Pass, ast.Name, ast.Constant),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Attribute, ast.List, ast.Tuple, ast.expr_context),
    *(ast.operator, ast.unaryop, ast.cmpop),
)


def run(text: str, sandbox: Sandbox) -> Outcome:
    """The value of a program as text, as CPython writes it, or the reason why it has none."""
    program = source(text)
    try:
        body = tree(program, MAX_TEXT).body
    except RefusedError as refused:
        return Outcome(None, "syntax") if refused.reason == "parse" else sandbox.run(program)
    try:
        return walk(body)
    except RefusedError:
        return sandbox.run(program)


def source(text: str) -> str:
    """The program in a completion: its last complete fenced block, else the text up to or behind a single fence."""
    if FENCE not in text:
        return text
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith(FENCE)]
    match fences:
        case []:
            return text
        case [only]:
            # The prompt opened the block that the completion closes, or the completion was cut off inside its own.
            is_end = lines[only].strip() == FENCE and any(line.strip() for line in lines[:only])
            return "\n".join(lines[:only] if is_end else lines[only + 1 :])
        case _:
            last = len(fences) // 2 * 2
            return "\n".join(lines[fences[last - 2] + 1 : fences[last - 1]])


def walk(body: Sequence[ast.stmt]) -> Outcome:
    """The outcome of a program that is covered.

    Raises:
        RefusedError: it is not, or it would raise.
    """
    walker = _Walker()
    names: dict[str, float] = {}
    walker.execute(body, names)
    value = names.get(ANSWER)
    if value is None:
        return Outcome(walker.printed, None) if walker.printed else Outcome(None, "no_answer")
    if isinstance(value, float) and not math.isfinite(value):
        return Outcome(None, "not_a_number")
    return Outcome(repr(value), None)


class Machine:
    """CPython's integers, floats and truth values. `functions` are those that can be called by now, by full name."""

    SIGNS: ClassVar[dict[type[Sign], Callable[[float, float], object]]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: operator.pow,
        ast.Eq: operator.eq,
        ast.NotEq: operator.ne,
        ast.Lt: operator.lt,
        ast.LtE: operator.le,
        ast.Gt: operator.gt,
        ast.GtE: operator.ge,
    }
    UNARY: ClassVar[dict[type[ast.unaryop], Callable[[float], object]]] = {
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
        ast.Not: operator.not_,
    }

    def __init__(self) -> None:
        builtins = (abs, float, int, len, max, min, round, sum)
        self.functions: dict[str, Callable[..., object]] = {function.__name__: function for function in builtins}

    def constant(self, value: object) -> float:
        """The literal itself."""
        return _number(value)

    def unary(self, sign: ast.unaryop, operand: float) -> float:
        """`-`, `+` or `not`."""
        return self._apply(self.UNARY.get(type(sign)), operand)

    def binary(self, sign: Sign, left: float, right: float) -> float:
        """Arithmetic and comparisons of two numbers."""
        if isinstance(left, int) and isinstance(right, int) and isinstance(sign, ast.Mult | ast.Pow):
            bits = left.bit_length()
            if (bits * right if isinstance(sign, ast.Pow) else bits + right.bit_length()) > MAX_BITS:
                raise RefusedError("too_long")
        return self._apply(self.SIGNS.get(type(sign)), left, right)

    def call(self, function: str, arguments: Sequence[float | list[float]]) -> float:
        """A function that is known by now."""
        match function, arguments:
            case "round", [_, int(digits)] if abs(digits) > MAX_DIGITS:
                raise RefusedError("too_long")
            case _:
                return self._apply(self.functions.get(function), *arguments)

    @staticmethod
    def _apply(function: Callable[..., object] | None, *arguments: float | list[float]) -> float:
        if function is None:
            raise RefusedError("parse")
        try:
            return _number(function(*arguments))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise RefusedError("undefined") from error


def _number(value: object) -> float:
    """The value, if it is a number of CPython's that is not too large; the root of -1 and a list from `max` are not."""
    if not isinstance(value, int | float):
        raise RefusedError("parse")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise RefusedError("too_long")
    return value


class _Walker:
    """Executes statements on a dict of names."""

    def __init__(self) -> None:
        self.printed = ""
        self._numbers = Machine()
        self._is_calling = False
        self._num_calls = 0

    def execute(self, body: Sequence[ast.stmt], names: dict[str, float]) -> float | None:
        """Execute statements in order; the value of the first `return`."""
        for statement in body:
            match statement:
                case ast.Assign(targets, value):
                    self._assign(targets, value, names)
                case ast.AugAssign(ast.Name(name), sign, value) if name in names:
                    names[name] = self._numbers.binary(sign, names[name], self._value(value, names))
                case ast.Expr(ast.Constant(str())) | ast.Pass():
                    pass
                case ast.Expr(ast.Call(ast.Name("print"), [argument], [])) if "print" not in names:
                    self._print(self._value(argument, names))
                case ast.Expr(value):
                    self._value(value, names)
                case ast.If(test, then, orelse) if self._is_calling or _is_harmless([statement]):
                    returned = self.execute(then if self._value(test, names) else orelse, names)
                    if returned is not None:
                        return returned
                case ast.Return(ast.expr() as value) if self._is_calling:
                    return self._value(value, names)
                case ast.Import() | ast.ImportFrom() | ast.FunctionDef() if not self._is_calling:
                    self._define(statement, names)
                case _:
                    raise RefusedError("parse")
        return None

    def _value(self, node: ast.expr, names: Mapping[str, float]) -> float:
        return evaluate(node, names, self._numbers)

    def _assign(self, targets: Sequence[ast.expr], value: ast.expr, names: dict[str, float]) -> None:
        """`a = 1`, `a = b = 1` and `a, b = 1, 2`."""
        match targets, value:
            case [ast.Tuple(parts)], ast.Tuple(elements) if len(parts) == len(elements):
                pairs = [*zip(parts, [self._value(element, names) for element in elements], strict=True)]
            case _:
                number = self._value(value, names)
                pairs = [(target, number) for target in targets]
        for target, number in pairs:
            if not isinstance(target, ast.Name) or target.id.startswith("__"):  # __debug__ cannot be assigned to
                raise RefusedError("parse")
            names[target.id] = number

    def _print(self, value: float) -> None:
        self.printed = str(value)
        if len(self.printed) > MAX_PRINTED:
            raise RefusedError("too_long")

    def _define(self, statement: ast.stmt, names: Mapping[str, float]) -> None:
        """Make callable what an import or a `def` brings, if it hides no value and no module, `print` or `ans`."""
        functions: dict[str, Callable[..., object]] = {}
        match statement:
            case ast.Import([ast.alias("math", None)]):
                bound, functions = "math", {f"math.{name}": function for name, function in MATH.items()}
            case ast.Import([ast.alias("numpy", "np")]):  # asked for by the zero-shot prompt, and hardly ever used
                bound = "np"
            case ast.ImportFrom("math", [ast.alias(str() as bound, None)]) if bound in MATH:
                functions = {bound: MATH[bound]}
            case ast.FunctionDef(str() as bound, parameters, body, [], None) if _is_harmless(body, ast.Return):
                if any(ast.iter_child_nodes(parameters)):
                    raise RefusedError("parse")
                functions = {bound: partial(self._call, body, names)}
            case _:
                raise RefusedError("parse")
        # A module hides the function of its name, and a function the module; one that hides a function replaces it.
        is_module = isinstance(statement, ast.Import)
        roots = {name.partition(".")[0] for name in self._numbers.functions if ("." in name) != is_module}
        if bound in {ANSWER, "print", *names, *roots} or bound.startswith("__"):
            raise RefusedError("parse")
        self._numbers.functions |= functions

    def _call(self, body: Sequence[ast.stmt], names: Mapping[str, float]) -> float | None:
        """The value of a function, which sees the program's names but those that it assigns itself."""
        own = {node.id for node in _nodes(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        hidden = own & {"print", *(function.partition(".")[0] for function in self._numbers.functions)}
        self._num_calls += 1
        if self._is_calling or hidden or self._num_calls > MAX_CALLS:
            raise RefusedError("parse")
        self._is_calling = True
        returned = self.execute(body, {name: value for name, value in names.items() if name not in own})
        self._is_calling = False
        return returned


def _nodes(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    return (node for statement in body for node in ast.walk(statement))


def _is_harmless(body: Sequence[ast.stmt], *also: type[ast.AST]) -> bool:
    """Whether statements that may not be reached hold nothing that the compiler would refuse all the same."""
    return all(isinstance(node, HARMLESS + also) and not _is_special(node) for node in _nodes(body))


def _is_special(node: ast.AST) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.startswith("__")  # `__debug__ = 1` does not compile
