"""What SymPy and math-verify do inside a forked child: numbers made plain, equations solved, answers compared.

    solve(["a + b = 10", "a - b = 4"], "a")     7
    solve(["x ** 2 = 2"], "x")                  1.4142135623730951
    same("\\frac{1}{2}", "0.5")                  True

Model text never reaches `sympify` or `parse_expr`, which evaluate Python: `ast` reads it, and each node that is allowed
becomes the SymPy object that it names. Anything here may take for ever; who started the process ends it.
"""

import ast
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import math_verify
import numpy
import sympy

from retort.solvers import Outcome

MAX_LINE = 2_000  # characters of an equation; a longer one is refused before it is read
PRECISION = 30  # digits that tell two roots apart
MAX_LATEX = 2_000  # characters of an answer
NO_ALARM = 0  # as a time limit: no SIGALRM
RATIO = re.compile(r"\d[^0-9A-Za-z]*:[^0-9A-Za-z]*\d")  # `3:45`, `1 : 2`, `6:\$3`: SymPy takes the colon for a division

ROUND = sympy.Function("round")  # of something that is not known yet

OPERATIONS: dict[type[ast.operator], Callable[[sympy.Expr, sympy.Expr], sympy.Expr]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
FUNCTIONS: dict[str, tuple[Callable[..., sympy.Expr], range]] = {  # and how many arguments they take
    "abs": (sympy.Abs, range(1, 2)),
    "min": (sympy.Min, range(1, 9)),
    "max": (sympy.Max, range(1, 9)),
    "floor": (sympy.floor, range(1, 2)),
    "ceil": (sympy.ceiling, range(1, 2)),
    "sqrt": (sympy.sqrt, range(1, 2)),
    "round": (lambda number, places=sympy.S.Zero: _rounded(number, places), range(1, 3)),
}


def plain(number: object) -> object:
    """A number of SymPy or NumPy as one of Python's own; anything else as it is."""
    if isinstance(number, numpy.generic) or (isinstance(number, numpy.ndarray) and number.ndim == 0):
        return number.item()
    if number is sympy.true or number is sympy.false:
        return number is sympy.true
    if not isinstance(number, sympy.Expr) or not number.is_number:
        return number
    if number.is_Rational:
        return int(number) if number.is_Integer else _fraction(number)
    close = sympy.N(number)
    return float(close) if close.is_Float or close.is_Rational else None


def solve(equations: Sequence[str], unknown: str) -> Outcome:
    """The exact value of `unknown` in the real solutions of a system; of several values the only positive one."""
    try:
        sides = [_difference(line) for line in equations]
    except (SyntaxError, ValueError, RecursionError):
        return Outcome(None, "parse")
    try:
        values = _values([side for side in sides if side != 0], _symbol(unknown))
    except (NotImplementedError, ZeroDivisionError, TypeError, ValueError):  # what sympy.solve raises when it gives up
        return Outcome(None, "no_solution")
    if values is None:
        return Outcome(None, "symbolic")
    if len(values) > 1:
        values = [value for value in values if value > 0]
        if len(values) != 1:
            return Outcome(None, "several_solutions")
    return Outcome(_written(values[0]), None) if values else Outcome(None, "no_solution")


def same(answer: str, gold: str) -> Outcome:
    """`True` or `False` by math-verify, which reads both as LaTeX; `parse` where one is a ratio or cannot be read."""
    if max(len(answer), len(gold)) > MAX_LATEX or RATIO.search(answer) or RATIO.search(gold):
        return Outcome(None, "parse")
    one, other = (math_verify.parse(f"${text}$", parsing_timeout=NO_ALARM) for text in (answer, gold))
    if not one or not other:
        return Outcome(None, "parse")
    return Outcome(str(bool(math_verify.verify(other, one, timeout_seconds=NO_ALARM))), None)


def warm_up() -> None:
    """Load what these libraries load at first use: afterwards no file can be opened."""
    x, y = sympy.symbols("x y")
    for equation in (
        2 * x - 4,
        x**2 - 2,
        2**x - 5,
        x**3 + x - 1,
        sympy.sqrt(x) - 3,
        sympy.Abs(sympy.Symbol("r", real=True)) - 1,
    ):
        sympy.solve(equation)
    sympy.solve([x + y - 3, x - y - 1], dict=True)
    sympy.solve([x * y - 6, x + y - 5], dict=True)
    sympy.solve(x**2 > 4, x)
    sympy.linsolve([x + y - 3, x - y - 1], x, y)
    sympy.solveset(x**2 - 1, x, sympy.S.Reals)
    sympy.nsolve(sympy.cos(x) - x, 1)
    sympy.summation(x, (x, 1, y))
    sympy.product(x, (x, 1, y))
    sympy.integrate(x * sympy.exp(x), x)
    sympy.integrate(x**2, (x, 0, 3))
    sympy.diff(sympy.sin(x), x)
    sympy.limit(sympy.sin(x) / x, x, 0)
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
    sympy.factor(sympy.expand((x + y) ** 2))
    sympy.refine(sympy.Abs(x), sympy.Q.positive(x))
    sympy.lambdify(x, x**2)(3)  # loads nearly all of NumPy
    sympy.Matrix([[2, 1], [1, 3]]).inv()
    list(sympy.primerange(20))
    sympy.factorint(360)
    sympy.latex(sympy.sympify("x/2 + sqrt(2)"))
    numpy.linalg.solve(numpy.eye(2), numpy.ones(2))
    numpy.roots([1, -3, 2])
    numpy.random.default_rng(0).normal(size=2)
    solve(["max(x, 2) = 5", "y = round(x, 1)"], "y")
    for text in ("\\frac{1}{2}", "2\\sqrt{3}", "\\{1, 2\\}", "(1, 2]", "x = 3", "50\\%"):
        same(text, "0.5")


def _values(sides: Sequence[sympy.Expr], unknown: sympy.Symbol) -> list[sympy.Expr] | None:
    """The distinct real values of an unknown; None where one is left open."""
    unknowns = sorted({symbol for side in sides for symbol in side.free_symbols}, key=str)
    solutions = sympy.solve(list(sides), unknowns, dict=True) if sides else [{}]
    values: dict[str, sympy.Expr] = {}
    for solution in solutions:
        value = solution.get(unknown, unknown).replace(ROUND, _rounded)
        if value.free_symbols:
            return None
        close = sympy.N(value, PRECISION, chop=True)
        if close.is_Float or close.is_Rational:
            values.setdefault(str(close), value)
    return list(values.values())


def _difference(line: str) -> sympy.Expr:
    """`lhs = rhs` as an expression that is to be zero."""
    left, equals, right = line.partition("=")
    if len(line) > MAX_LINE or not equals:
        raise ValueError("not an equation")
    return _expression(left) - _expression(right)


def _expression(text: str) -> sympy.Expr:
    text = text.strip()

    def read(node: ast.expr) -> sympy.Expr:
        match node:
            case ast.Name(id=name):
                return _symbol(name)
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                # Its digits, not the float: 0.1 is a tenth.
                digits = text.encode()[node.col_offset : node.end_col_offset].decode()
                return _rational(Fraction(int(digits, 0) if isinstance(node.value, int) else digits))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return -read(operand) if isinstance(node.op, ast.USub) else read(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
                return OPERATIONS[type(op)](read(left), read(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
                function, counts = FUNCTIONS[name]
                if len(arguments) in counts:
                    return function(*map(read, arguments))
            case _:
                pass
        raise ValueError(f"not arithmetic: {type(node).__name__}")

    return read(ast.parse(text, mode="eval").body)


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, real=True)


def _rational(value: Fraction | int) -> sympy.Expr:
    return sympy.Rational(value.numerator, value.denominator)


def _fraction(number: sympy.Expr) -> Fraction:
    numerator, denominator = number.as_numer_denom()
    return Fraction(int(numerator), int(denominator))


def _rounded(number: sympy.Expr, places: sympy.Expr = sympy.S.Zero) -> sympy.Expr:
    """As Python rounds, ties to even; left open while the number is not known."""
    if number.free_symbols or not places.is_Integer:
        return ROUND(number, places)
    exact = number if number.is_Rational else sympy.Rational(str(sympy.N(number, PRECISION)))
    return _rational(round(_fraction(exact), int(places)))


def _written(value: sympy.Expr) -> str:
    number = plain(value)
    return repr(number) if isinstance(number, float) else str(number)
