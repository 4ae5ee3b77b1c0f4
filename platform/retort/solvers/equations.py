"""Equations: lines of `lhs = rhs` in, the exact value of `ans` or the reason why it has none out (PAPERS 3.3).

    % Tom has 12 apples, which are 20% of all
    apples = 12
    apples = 20% of all
    ans = all - 3                                                   57

Lengths are checked first, and nothing is evaluated by Python. Beside its arithmetic this reads `3x`, `3(10)`,
`2 total`, `^`, `$1,234.50`, `20%`, `20% of x`, signs of print, a chain `a = b = 150`, and names that are Python's
keywords. A line that starts with `%`, `#` or `//` is a comment; so is the rest of one behind `#`, or ` %` and a word.
A line without `=` is prose, and a condition (`total <= 50`) gives no value; what else cannot be read refuses the whole.

Equations hold together, wherever they stand: they are solved by substitution and linear elimination over all unknowns,
and redundant ones do no harm. Where that is a contradiction they are read as a program: after `x = 1`, both `x = 2` and
`x = x + 1` assign, and the last wins. What stays nonlinear, and `ans` with it, goes to the sandbox. A system that does
not name `ans` is not guessed at: of 660 recorded ones 3 do not, and but one of those says what it asks for.
"""

import ast
import re
from fractions import Fraction
from itertools import pairwise

from retort import answers
from retort.solvers import Outcome
from retort.solvers.expressions import Exact, Linear, Rational, RefusedError, evaluate, tree
from retort.solvers.zygote import SOLVE_REASONS, Sandbox

# The recorded systems have at most 1,386 characters and 14 equations, these 793 characters and each of them 39 tokens.
MAX_TEXT = 16_000
MAX_EQUATIONS = 64
MAX_EQUATIONS_TEXT = 4_000
MAX_LINE = 500
MAX_TOKENS = 120  # of one equation, and so the depth of its tree, which `ast.unparse` recurs into

REASONS = tuple(sorted({"parse", "too_long", "no_answer", "no_solution", "symbolic", "time", *SOLVE_REASONS}))
"""Why there is no value: an equation cannot be read; the text, a number or a power is too large; no equation has `ans`;
the equations contradict each other, or divide by zero; `ans` depends on an unknown; there is too much to eliminate; and
what the sandbox says of equations that are not linear."""

SIGNS = answers.SIGNS | str.maketrans("[]", "()", "$€£¥\\")
WHOLE_COMMENT = ("%", "#", "//")
COMMENT = re.compile(r"#|(?<=\s)%(?=\s*(?!of\b)[^\W\d])")  # `14 % He buys 14`, but not `20 % of x`
CONDITION = re.compile(r"[<>≤≥≠]|!=")
CONTROL = re.compile(r"(?:if|else|elseif|elif|end|for|while)\b(?!\s*=)")  # its equations hold only at times
FUNCTIONS = ("abs", "ceil", "floor", "max", "min", "round", "sqrt")
TOKEN = re.compile(
    rf"\s*(?:(?:math\.)?(?P<function>{'|'.join(FUNCTIONS)})(?=\s*\()"
    r"|(?P<name>[^\W\d][\w&]*|[0-9]+(?:st|nd|rd|th)?_\w*[^\W\d_]\w*)"  # total_M&Ms, 3rd_day
    r"|0*(?P<number>(?=\.?[0-9])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3}(?!\w))?)"
    r"|(?P<of>%\s*of\b)|(?P<percent>%)|(?P<open>\()|(?P<close>\))|(?P<equal>==?)|(?P<power>\^)|(?P<sign>\*\*|[-+*/,]))\s*"
)

Equation = tuple[ast.expr, ast.expr]

ANS = "_ans"  # as `_name` writes it
ANS_MENTIONED = re.compile(r"\b_ans\b")
STARTS = ("number", "name", "function", "open")  # of an operand
ENDS = ("number", "name", "close")


def solve(text: str, sandbox: Sandbox) -> Outcome:
    """The value of `ans` as a whole number or `p/q`, or the reason why it has none."""
    try:
        system = _System()
        for sides in _equations(text):
            for left, right in pairwise(sides):
                system.add(left, right)
        value = system.value(ANS)
    except RefusedError as refused:
        return Outcome(None, "no_solution" if refused.reason == "undefined" else refused.reason)
    if value is None:
        return sandbox.solve(system.left_over(ANS), ANS)
    return Outcome(str(value), None)


def _equations(text: str) -> list[list[ast.expr]]:
    """The sides of each equation: two, or more of a chain."""
    if len(text) > MAX_TEXT:
        raise RefusedError("too_long")
    written = [line for line in map(_bare, text.translate(SIGNS).splitlines()) if line]
    if len(written) > MAX_EQUATIONS or sum(map(len, written)) > MAX_EQUATIONS_TEXT:
        raise RefusedError("too_long")
    lines = [_sides(line) for line in written]
    sides = [side for line in lines for side in line]
    if not any(map(ANS_MENTIONED.search, sides)):
        raise RefusedError("no_answer")
    # One call of the parser for all of them: a side has no line break, and its brackets are closed.
    body = tree("\n".join(sides), 4 * MAX_TEXT).body
    values = [statement.value for statement in body if isinstance(statement, ast.Expr)]
    if not len(values) == len(body) == len(sides):
        raise RefusedError("parse")
    following = iter(values)
    return [[next(following) for _ in line] for line in lines]


def _bare(line: str) -> str:
    """An equation without what stands around it; nothing where the line holds none."""
    line = line.strip()
    if line.startswith(WHOLE_COMMENT):
        return ""
    if CONTROL.match(line):
        raise RefusedError("parse")
    line = COMMENT.split(line, 1)[0].rstrip(" \t;.,")
    if "=" not in line or CONDITION.search(line):
        return ""
    if len(line) > MAX_LINE:
        raise RefusedError("too_long")
    return line


def _name(written: str) -> str:
    """A name that Python can read: none of its keywords, no function, not begun by a digit."""
    return "_" + written.replace("&", "_and_")


def _sides(line: str) -> list[str]:
    """What stands between the `=` of a line, in Python's syntax."""
    pieces: list[str] = []
    depth, position, num_tokens, before = 0, 0, 0, ""
    while position < len(line):
        token = TOKEN.match(line, position)
        kind = token and token.lastgroup
        if token is None or kind is None or not _may_follow(before, kind):
            raise RefusedError("parse")
        position, written, num_tokens = token.end(), token[kind], num_tokens + 1
        depth += (kind == "open") - (kind == "close")
        if depth < 0 or (kind == "equal" and depth):
            raise RefusedError("parse")
        if num_tokens > MAX_TOKENS:
            raise RefusedError("too_long")
        if before in ENDS and kind in STARTS:
            pieces.append("*")
        match kind:
            case "name":
                written = _name(written)
            case "number":
                if "," in written and any(piece in FUNCTIONS for piece in pieces):  # max(1,234)
                    raise RefusedError("parse")
                written = written.replace(",", "")
            case "power":
                written = "**"
            case "equal":
                written = "\n"
            case "percent":  # a number's, so that it is one with it
                written, kind = f"({pieces.pop()}/100)", "close"
            case "of":
                written, kind = f"({pieces.pop()}/100)*", "sign"
            case _:
                pass
        pieces.append(written)
        before = kind
    return "".join(pieces).split("\n")


def _may_follow(before: str, kind: str) -> bool:
    """Whether one token may stand behind another: `3x` and `)(`, but no two words or numbers, and no call of `f(x)`."""
    if kind in ("percent", "of"):
        return before == "number"
    return before not in ENDS or kind not in STARTS or (before != "name" and kind != "number")


class _Values(dict[str, Linear]):
    """The values of names; a name without one is an unknown and stands for itself."""

    def __contains__(self, name: object) -> bool:
        return name not in FUNCTIONS

    def __missing__(self, name: str) -> Linear:
        return Linear(0, {name: 1})


class _System:
    """Equations added one by one. All values are kept reduced: no name that has one occurs in another's."""

    def __init__(self, other: "_System | None" = None) -> None:
        self._exact = other._exact if other else Exact()
        self._values = _Values(other._values if other else {})
        self._open: set[str] = {*other._open} if other else set()  # names whose values have unknowns
        self._nonlinear: list[Equation] = [*other._nonlinear] if other else []
        self._assigned: set[str] = set()  # names that stood alone on a left side
        self._num_renamed = 0

    def add(self, left: ast.expr, right: ast.expr) -> None:
        """Take one more equation as true, or as an assignment where it cannot be."""
        name = left.id if isinstance(left, ast.Name) else ""
        if name in self._assigned and name in _names(right):
            self._renew(name, right)
        difference = self._difference(left, right)
        if name in self._assigned and difference is not None and not difference.terms and difference.constant:
            self._renew(name, right)
            difference = self._difference(left, right)
        self._assigned.add(name)
        if difference is None:
            self._nonlinear.append((left, right))
        else:
            self._eliminate(difference, name)

    def value(self, name: str) -> Rational | None:
        """The value of a name; None where the nonlinear equations, which are `left_over`, must say it."""
        self._settle()
        value = self._values[name]
        if value.terms:
            if self._nonlinear and not self._is_free(name):
                return None
            raise RefusedError("symbolic")
        if max(abs(value.constant.numerator), value.constant.denominator) >= answers.LARGEST:
            raise RefusedError("too_long")
        return value.constant

    def left_over(self, name: str) -> list[str]:
        """The nonlinear equations in the unknowns that are left, and what `name` is in terms of them."""
        known = _Known(self._values)
        sides = [map(ast.unparse, map(known.visit, equation)) for equation in self._nonlinear]
        lines = [" = ".join(pair) for pair in sides]
        return [*lines, f"{name} = {self._values[name]}"] if name in self._open else lines

    def _settle(self) -> None:
        """Take up the equations that have become linear by what is known now."""
        waiting: list[Equation] = []
        while len(waiting) != len(self._nonlinear):
            waiting, self._nonlinear = self._nonlinear, []
            for left, right in waiting:
                difference = self._difference(left, right)
                if difference is None:
                    self._nonlinear.append((left, right))
                else:
                    self._eliminate(difference)

    def _is_free(self, name: str) -> bool:
        """Whether a name surely has no one value: the sandbox, which would find out too, takes 200 times as long.

        It has an unknown that no nonlinear equation has, or two choices of unknowns solve everything and change it.
        """
        mentioned = {name for equation in self._nonlinear for side in equation for name in _names(side)}
        unknowns = {unknown for name in mentioned for unknown in self._values[name].terms} - {*FUNCTIONS}
        if not self._values[name].terms.keys() <= unknowns:
            return True
        defined = {left.id for left, _ in self._nonlinear if isinstance(left, ast.Name)}
        found: set[Rational] = set()
        for choice in (1009, 2003):  # no roots that a question would have
            chosen = _System(self)
            try:
                for number, unknown in enumerate(sorted(unknowns - defined)):
                    chosen._eliminate(Linear(-choice - number * number, {unknown: 1}))
                chosen._settle()
            except RefusedError:  # no solution, so that nothing is known
                return False
            if chosen._nonlinear or chosen._values[name].terms:
                return False
            found.add(chosen._values[name].constant)
        return len(found) == 2

    def _difference(self, left: ast.expr, right: ast.expr) -> Linear | None:
        """`left - right`, or None where that is not linear, so far."""
        self._exact.spend(1)
        try:
            one, other = (evaluate(side, self._values, self._exact) for side in (left, right))
        except RefusedError as refused:
            if refused.reason == "nonlinear":
                return None
            raise
        return self._exact.bounded(one.plus(other.times(-1)))

    def _eliminate(self, difference: Linear, name: str = "") -> None:
        """Solve `difference = 0` for a name, the given one if it can be, and put its value in everywhere."""
        if not difference.terms:
            if difference.constant:
                raise RefusedError("no_solution")
            return
        name = name if name in difference.terms else next(iter(difference.terms))
        factor = difference.terms[name]
        rest = difference.plus(Linear(0, {name: -factor}))
        value = self._exact.bounded(rest.times(-1 if factor == 1 else -1 / Fraction(factor)))
        self._substitute(name, value)
        self._set(name, value)

    def _substitute(self, name: str, value: Linear) -> None:
        for other in [*self._open]:
            form = self._values[other]
            factor = form.terms.get(name)
            if factor is not None:
                rest = form.plus(Linear(0, {name: -factor}))
                self._set(other, self._exact.bounded(rest.plus(value.times(factor))))

    def _set(self, name: str, value: Linear) -> None:
        self._values[name] = value
        self._open.discard(name)
        if value.terms:
            self._open.add(name)

    def _renew(self, name: str, right: ast.expr) -> None:
        """Make a name an unknown again; what was said of it so far is now said of another name."""
        self._num_renamed += 1
        self._exact.spend(4 * len(self._nonlinear))
        old = f"old{self._num_renamed}{name}"
        value = self._values.pop(name, None)
        self._open.discard(name)
        if value is None:
            self._substitute(name, Linear(0, {old: 1}))
        else:
            self._set(old, value)
        for side in (right, *(side for equation in self._nonlinear for side in equation)):
            for node in ast.walk(side):
                if isinstance(node, ast.Name) and node.id == name:
                    node.id = old


class _Known(ast.NodeTransformer):
    """Puts the values of names into an expression, as text that `ast.unparse` writes as it is."""

    def __init__(self, values: _Values) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """A name with a value."""
        value = self._values.get(node.id)
        return node if value is None else ast.Name(f"({value})")


def _names(side: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(side) if isinstance(node, ast.Name)}
