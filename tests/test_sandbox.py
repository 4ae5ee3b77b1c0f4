"""The sandbox: what programs, equations and answers come to, its limits, its processes. Attacks have their own file."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

import retort
from retort import solvers
from retort.solvers import Outcome, confinement
from retort.solvers.zygote import MAX_PROGRAM, RUN_REASONS, SOLVE_REASONS, Limits, Sandbox, _Zygote, refusal

SUM = "ans = 6 * 7"
LONG = "import time\ntime.sleep(60)"

PROGRAMS = [
    ("ans = 6 * 7", "42"),
    ("price = 2.5\ncount = 4\nans = price * count", "10.0"),
    ("ans = 7 / 2", "3.5"),
    ("ans = 1 / 3", "0.3333333333333333"),
    ("ans = 0.1 + 0.2", "0.30000000000000004"),
    ("ans = round(2.675, 2)", "2.67"),
    ("ans = 7 // 2 + 7 % 4", "6"),
    ("ans = -3", "-3"),
    ("ans = 2 ** 100", "1267650600228229401496703205376"),
    ("ans = 1e300", "1e+300"),
    ("ans = 3 > 2", "True"),
    ("ans = 'yes' if 3 > 2 else 'no'", "yes"),
    ("ans = '  apples \\n'", "apples"),
    ("ans = int('12') + float('0.5')", "12.5"),
    ("print(5)\nans = 6", "6"),
    ("print('first')\nprint('12 apples')\nprint()", "12 apples"),
    ("import sys\nsys.stdout.write('4')\nsys.stdout.write('2')", "42"),
    ("import sys\nprint(1, file=sys.stderr)\nprint(2)", "2"),
    ("print(3, end='')\nexit()", "3"),
    ("ans = 3\nimport sys\nsys.exit(0)", "3"),
    ("def solution():\n    eggs = 16 - 3 - 4\n    return eggs * 2\nans = solution()", "18"),
    ("def main():\n    print(18)\nif __name__ == '__main__':\n    main()", "18"),
    ("def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nans = fib(15)", "610"),
    ("ans = sum(n for n in range(1, 101) if n % 3 == 0)", "1683"),
    ("total = 0\nfor day in range(1, 6):\n    total += day ** 2\nans = total", "55"),
    ("n, ans = 27, 0\nwhile n != 1:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    ans += 1", "111"),
    ("ans = f'{1234567.891:,.2f}'", "1,234,567.89"),
    ("ans = '{:05d}'.format(42)", "00042"),
    ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    ans = 1", "1"),
    ("import math\nans = math.gcd(84, 36) + math.isqrt(17)", "16"),
    ("import math\nans = math.ceil(7 / 2)", "4"),
    ("from fractions import Fraction\nans = Fraction(1, 3) + Fraction(1, 6)", "1/2"),
    ("from fractions import Fraction\nans = Fraction(6, 3)", "2"),
    ("from decimal import Decimal\nans = Decimal('0.1') + Decimal('0.2')", "0.3"),
    ("from decimal import Decimal\nans = Decimal('1E+3')", "1000"),
    ("import datetime\nans = (datetime.date(2024, 3, 1) - datetime.date(2024, 2, 1)).days", "29"),
    ("from datetime import datetime\nans = datetime.strptime('03/14/2021', '%m/%d/%Y').strftime('%d %b')", "14 Mar"),
    (
        "from datetime import datetime, timedelta\nans = str(datetime(2020, 12, 31) + timedelta(days=1))[:10]",
        "2021-01-01",
    ),
    ("import calendar\nans = calendar.day_name[calendar.weekday(2024, 2, 29)]", "Thursday"),
    ("from collections import Counter\nans = Counter('mississippi').most_common(1)[0][1]", "4"),
    (
        "from collections import defaultdict, deque\nd = defaultdict(int)\nd['a'] += 2\nans = d['a'] + deque([1])[0]",
        "3",
    ),
    ("from itertools import permutations\nans = len(list(permutations('abcd', 2)))", "12"),
    ("import itertools, operator\nans = list(itertools.accumulate([1, 2, 3], operator.mul))[-1]", "6"),
    ("from functools import lru_cache, reduce\nans = reduce(lambda a, b: a * b, [1, 2, 3, 4])", "24"),
    ("import statistics\nans = statistics.mean([1, 2, 4])", "2.3333333333333335"),
    ("import statistics\nans = statistics.median([3, 1, 2])", "2"),
    ("import re\nans = int(re.search(r'(\\d+) cats', 'He has 12 cats')[1])", "12"),
    ("import heapq, bisect\nans = heapq.nlargest(1, [3, 9, 2])[0] + bisect.bisect([1, 2, 3], 2)", "11"),
    ("import string\nans = string.ascii_lowercase.index('e')", "4"),
    ("import json\nans = json.loads('{\"a\": [1, 2]}')['a'][1]", "2"),
    ("import random\nrandom.seed(1)\nans = random.randint(1, 6) in range(1, 7)", "True"),
    ("class Box:\n    def __init__(self, n):\n        self.n = n\nans = Box(3).n", "3"),
    (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\n    y: 'int' = 2\n"
        "ans = P(1).x + P(1).y",
        "3",
    ),
    ("from enum import Enum\nclass Day(Enum):\n    MON = 1\nans = Day.MON.value", "1"),
    ("from typing import List\ndef f(xs: List[int]) -> int: return sum(xs)\nans = f([1, 2])", "3"),
    ("match (1, 'b'):\n    case (1, x):\n        ans = x\n    case _:\n        ans = 'none'", "b"),
    ("xs = [3, 1, 2]\nxs.sort(reverse=True)\nfirst, *rest = xs\nans = first + len(rest)", "5"),
    ("ans = sorted({'b', 'a'})[0]", "a"),
    ("ans = max({'a': 1, 'b': 3}.items(), key=lambda item: item[1])[0]", "b"),
    ("if (n := 10) > 5:\n    ans = n", "10"),
]
SCIENCE = [
    ("from sympy import symbols, solve\nx = symbols('x')\nans = solve(2 * x - 10, x)[0]", "5"),
    ("import sympy\nx, y = sympy.symbols('x y')\nans = sympy.solve([x + y - 3, x - y - 2], [x, y])[x]", "5/2"),
    ("import sympy\nx = sympy.Symbol('x')\nans = sympy.solve(x ** 2 - 2, x)[1]", "1.4142135623730951"),
    ("from sympy import Rational\nans = Rational(3, 4) * 2", "3/2"),
    ("from sympy import *\nx = Symbol('x')\nans = integrate(x ** 2, (x, 0, 3))", "9"),
    ("from sympy import *\nx = Symbol('x')\nans = diff(sin(x), x).subs(x, 0)", "1"),
    ("import sympy\nans = sympy.N(sympy.pi, 4) > 3", "True"),
    ("import sympy\nans = sympy.Float('2.5')", "2.5"),
    ("import sympy\nans = list(sympy.primerange(20))[-1]", "19"),
    ("import sympy\nx = sympy.Symbol('x')\nans = sympy.solve(x ** 2 + 1, x)[0]", None),
    ("import sympy\nans = sympy.Symbol('x')", None),
    ("import sympy\nans = sympy.oo", None),
    ("import numpy as np\nans = np.mean([1, 2, 4])", "2.3333333333333335"),
    ("import numpy as np\nans = np.sum(np.arange(5))", "10"),
    ("import numpy as np\nans = np.array(7)", "7"),
    ("import numpy as np\nans = np.float32(0.5) > 0", "True"),
    ("import numpy as np\nans = np.linalg.solve([[2, 0], [0, 4]], [3, 5])[0]", "1.5"),
    ("import numpy as np\nans = np.round(np.polyfit([1, 2, 3], [2, 4, 6], 1)[0], 6)", "2.0"),
    ("import sympy\nx = sympy.Symbol('x')\nans = sympy.lambdify(x, x ** 2)(3)", "9"),
    ("import numpy as np\nans = np.array([7, 8])", None),
    ("import numpy as np\nans = np.nan", None),
    (
        "from datetime import date\nfrom dateutil.relativedelta import relativedelta\n"
        "ans = str(date(2024, 1, 31) + relativedelta(months=1))",
        "2024-02-29",
    ),
]
REASONS = [
    ("", "no_answer"),
    ("x = 3", "no_answer"),
    ("ans = ''", "no_answer"),
    ("ans =", "syntax"),
    ("Tom has 3 apples.", "syntax"),
    ("ans = apples", "raised NameError"),
    ("ans = 1 / 0", "raised ZeroDivisionError"),
    ("import pandas", "raised ModuleNotFoundError"),
    ("ans = [1, 2][5]", "raised IndexError"),
    ("assert False", "raised AssertionError"),
    ("import decimal\ndecimal.Decimal('x')", "raised Exception"),
    ("ans = None", "not_a_number"),
    ("ans = [42]", "not_a_number"),
    ("ans = {'a': 1}", "not_a_number"),
    ("ans = 1j", "not_a_number"),
    ("ans = float('nan')", "not_a_number"),
    ("ans = float('inf')", "not_a_number"),
    ("ans = print", "not_a_number"),
    ("ans = b'42'", "not_a_number"),
    ("from decimal import Decimal\nans = Decimal('NaN')", "not_a_number"),
    ("ans = 'x' * 201", "not_a_number"),
    ("print('x' * 70_000)", "output"),
    ("ans = 1 #" + "x" * MAX_PROGRAM, "too_long"),
    ("import os\nos._exit(0)", "crashed"),
]
EQUATIONS = [
    (["x = 5"], "x", "5"),
    (["5 = x"], "x", "5"),
    (["a + b = 10", "a - b = 4"], "b", "3"),
    (["3 * x = 1"], "x", "1/3"),
    (["x = 0.1 + 0.2"], "x", "3/10"),
    (["x = 0.1000000000000000000000001 * 10"], "x", "1000000000000000000000001/1000000000000000000000000"),
    (["x = 1_000 + 1e3"], "x", "2000"),
    (["x ** 2 = 9"], "x", "3"),
    (["x ** 2 = -6 * x - 9"], "x", "-3"),
    (["x ** 2 = 2"], "x", "1.4142135623730951"),
    (["x ** 3 = 8"], "x", "2"),
    (["(x - 2) * (x + 7) = 0"], "x", "2"),
    (["x * y = 6", "x + y = 5", "x - y = 1"], "y", "2"),
    (["w * l = 50", "l = 2 * w"], "w", "5"),
    (["l = 2 * w", "w * l = 50", "ans = 2 * (w + l)"], "ans", "30"),
    (["sqrt(x) = 3"], "x", "9"),
    (["abs(x) = 3"], "x", "3"),
    (["1.05 ** t = 2"], "t", "14.206699082890474"),
    (["x = max(3, 5) + min(1, 2) + floor(2.5) + ceil(2.5)"], "x", "11"),
    (["x = round(2.5) + round(0.125, 2)"], "x", "53/25"),
    (["x ** 2 = 2", "y = round(x, 2)"], "y", "141/100"),
    (["x = 1", "x = 2"], "x", "no_solution"),
    (["x ** 2 = -1"], "x", "no_solution"),
    (["1 = 2", "x = 1"], "x", "no_solution"),
    (["(x - 1) * (x - 2) = 0"], "x", "several_solutions"),
    (["(x + 1) * (x + 2) = 0"], "x", "several_solutions"),
    (["x = y + 1"], "x", "symbolic"),
    (["y = 1"], "x", "symbolic"),
    (["1 = 1"], "x", "symbolic"),
    ([], "x", "symbolic"),
    (["x"], "x", "parse"),
    (["x = "], "x", "parse"),
    (["x = y = 2"], "x", "parse"),
    (["x == 2"], "x", "parse"),
    (["x = True"], "x", "parse"),
    (["x = 1j"], "x", "parse"),
    (["x = '2'"], "x", "parse"),
    (["x = a.b"], "x", "parse"),
    (["x = 7 // 2"], "x", "parse"),
    (["x = sum(1, 2)"], "x", "parse"),
    (["x = sqrt(1, 2)"], "x", "parse"),
    (["x = __import__('os').system('true')"], "x", "parse"),
    (["x = (lambda: 3)()"], "x", "parse"),
    (["x = " + "-" * 1_900 + "1"], "x", "parse"),
    (["x = 1" + " " * 2_000], "x", "parse"),
    (["x = \ud800"], "x", "parse"),
    (["x = 1\0"], "x", "parse"),
    (["x = 1"] * 10_000, "x", "too_long"),
    (["x = 9 ** 9 ** 9 ** 9"], "x", "time"),
    (["x = 1 / 0"], "x", "no_solution"),
]
ANSWERS = [
    ("\\frac{1}{2}", "0.5", True),
    ("2\\sqrt{2}", "\\sqrt{8}", True),
    ("\\{1, 2\\}", "\\{2, 1\\}", True),
    ("x^2 - 1", "(x - 1)(x + 1)", True),
    ("(1, 2]", "(1, 2)", False),
    ("\\$1,234.50", "1234.5", True),
    ("50\\%", "0.5", True),
    ("12", "13", False),
    ("", "13", None),
    ("1" * 30_000, "1", None),
    ("\\frac" * 300, "1", False),
    ("x:2", "3", False),
    ("9^{9^{9^{9^{9}}}}", "1", None),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(timeout_s=20)) as made:
        yield made


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    with Sandbox(Limits(timeout_s=0.5, memory_mib=128, output_bytes=100)) as made:
        yield made


def processes() -> set[int]:
    """Everything that this process has started and that still runs."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def keepers() -> set[psutil.Process]:
    """The outer process of each zygote that this process has started."""
    return set(psutil.Process().children())


def server(sandbox: Sandbox) -> psutil.Process:
    """The process that forks children, of the tier without libraries, started anew; its parent is the keeper."""
    sandbox.close()
    before = keepers()
    sandbox.run("")
    (keeper,) = keepers() - before
    (forks,) = keeper.children()
    return forks


def wait_until(claim: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(("program", "value"), PROGRAMS)
def test_a_program_has_the_value_that_python_gives_it(sandbox: Sandbox, program: str, value: str) -> None:
    assert sandbox.run(program) == Outcome(value, None)


@pytest.mark.parametrize(("program", "value"), SCIENCE)
def test_numbers_of_libraries_become_plain_ones(sandbox: Sandbox, program: str, value: str | None) -> None:
    assert sandbox.run(program) == Outcome(value, None if value else "not_a_number")


@pytest.mark.parametrize(("program", "reason"), REASONS)
def test_a_program_without_a_value_has_its_reason(sandbox: Sandbox, program: str, reason: str) -> None:
    assert reason in RUN_REASONS
    assert sandbox.run(program) == Outcome(None, reason)


@pytest.mark.parametrize(("equations", "unknown", "said"), EQUATIONS)
def test_an_unknown_has_its_exact_value_or_a_reason(
    hasty: Sandbox, sandbox: Sandbox, equations: list[str], unknown: str, said: str
) -> None:
    outcome = (hasty if said == "time" else sandbox).solve(equations, unknown)
    assert outcome == (Outcome(None, said) if said in SOLVE_REASONS else Outcome(said, None))


@pytest.mark.parametrize(("answer", "gold", "is_same"), ANSWERS)
def test_latex_is_compared_by_its_meaning(
    hasty: Sandbox, sandbox: Sandbox, answer: str, gold: str, is_same: bool | None
) -> None:
    assert (hasty if is_same is None else sandbox).same(answer, gold) is is_same


@pytest.mark.parametrize(
    ("ratio", "quotient"),
    [("12:4", "3"), ("5:1", "5"), ("30 : 60", "0.5"), ("6:\\$3", "2"), ("\\frac{1}{2}:4", "1/8"), ("3:45", "3:45")],
)
def test_a_time_or_a_ratio_is_no_quotient(sandbox: Sandbox, ratio: str, quotient: str) -> None:
    assert sandbox.same(ratio, quotient) is None
    assert sandbox.same(quotient, ratio) is None
    assert sandbox.same(ratio.replace(":", "/"), quotient.replace(":", "/")) is True


def test_one_tier_has_no_library_loaded_and_the_other_is_chosen_by_name(sandbox: Sandbox) -> None:
    loaded = "import sys\nans = ' '.join({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    plain = (sandbox.run(loaded).value or "").split()
    assert "retort" in plain, "the list is not of modules"
    # Some packages (PasteDeploy among them) are put into every Python at its start, by a `.pth` file of theirs.
    assert set(plain) <= {"retort", "_distutils_hack", "paste", "__main__"}
    assert sandbox.run("import sys\nans = {'sympy', 'numpy', 'math_verify'} <= set(sys.modules)").value == "True"


def test_each_limit_has_its_reason(hasty: Sandbox) -> None:
    assert hasty.run("while True: pass") == Outcome(None, "time")
    with Sandbox(Limits(timeout_s=20, memory_mib=128, output_bytes=100)) as small:
        assert small.run("ans = len(bytearray(100 << 20))") == Outcome("104857600", None)
        assert small.run("ans = len(bytearray(130 << 20))") == Outcome(None, "memory")
        assert small.run("print('x' * 99)") == Outcome("x" * 99, None)
        assert small.run("print('x' * 100)") == Outcome(None, "output")
        assert small.run("print('é' * 50)") == Outcome(None, "output")


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"timeout_s": 0}, {"memory_mib": 1}, {"output_bytes": -1}, {"timeout": 5}):
        with pytest.raises(ValidationError):
            Limits.model_validate(wrong)


def test_the_same_program_has_the_same_outcome_in_every_sandbox(sandbox: Sandbox) -> None:
    chance = "import random\nans = ' '.join({'a', 'b', 'c', 'd', 'e'}) + str(random.random())"
    with Sandbox() as other:
        assert {sandbox.run(chance), sandbox.run(chance), other.run(chance)} == {sandbox.run(chance)}
        numbers = "import numpy\nans = numpy.random.rand()"
        assert sandbox.run(numbers) == other.run(numbers)


def test_a_program_leaves_nothing_to_the_next(sandbox: Sandbox) -> None:
    sandbox.run("import math\nmath.pi = 3\nleft = 1\nimport builtins\nbuiltins.sum = max\nans = 1")
    assert sandbox.run("import math\nans = math.pi + sum([1, 1])").value == "5.141592653589793"
    assert sandbox.run("ans = left") == Outcome(None, "raised NameError")


def test_every_layer_is_in_force_here_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "retort.solvers.zygote"), Sandbox() as sandbox:
        assert sandbox.layers == ("namespaces", "seccomp", "rlimits")
        assert sandbox.run(SUM).value == "42"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("protected by namespaces, seccomp, rlimits")


def test_a_normal_user_gets_every_layer_too() -> None:
    script = "from retort.solvers.zygote import Sandbox\nwith Sandbox() as s: print(*s.layers, *s.run('ans = 6 * 7'))"
    # The capability lets a normal user find a Python that lies where only root may look, and nothing else.
    to_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    to_nobody += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = [*(to_nobody if os.geteuid() == 0 else []), sys.executable, "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "namespaces seccomp rlimits 42 None\n"


def test_the_zygote_is_of_the_same_package_as_its_owner(tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    for file in ("__init__.py", *(f"solvers/{path.name}" for path in Path(solvers.__file__).parent.glob("*.py"))):
        (copied / "retort" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(retort.__file__).parent / file, copied / "retort" / file)
    script = "from retort.solvers.zygote import Sandbox\nwith Sandbox() as s: "
    script += "print(s.run('import retort\\nans = retort.__file__').value)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(copied)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(copied / "retort" / "__init__.py")


@pytest.mark.parametrize(
    ("platform", "layers", "complaint"),
    [
        ("linux", ("namespaces", "seccomp", "rlimits"), None),
        ("linux", ("seccomp", "rlimits"), None),
        ("linux", ("namespaces", "rlimits"), "no seccomp filter"),
        ("linux", ("rlimits",), "no seccomp filter"),
        ("linux", (), "no seccomp filter"),
        ("darwin", ("seccomp", "rlimits"), "on Linux only, not on 'darwin'"),
        ("win32", (), "on Linux only, not on 'win32'"),
    ],
)
def test_without_protection_nothing_runs(platform: str, layers: tuple[str, ...], complaint: str | None) -> None:
    said = refusal(platform, layers)
    assert said is None if complaint is None else complaint in (said or "")


def test_where_the_kernel_grants_no_filter_nothing_runs_nothing_is_left_and_answers_cannot_be_told_apart() -> None:
    script = """
import logging, psutil, sys
from attacks.driver import PR_SET_SECCOMP, PRCTL, forbid
from retort.solvers.zygote import Sandbox
forbid(PRCTL, PR_SET_SECCOMP)
logging.basicConfig(stream=sys.stdout, format="logged: %(message)s")
sandbox = Sandbox()
print(sandbox.same("1/2", "0.5"), sandbox.same("7", "7"), sandbox.is_in_use)
for ask in (lambda: sandbox.run("ans = 1"), lambda: sandbox.solve(["x = 1"], "x"), lambda: sandbox.layers):
    try:
        print(ask())
    except RuntimeError as error:
        print(error, psutil.Process().children())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cause = refusal("linux", ("namespaces", "rlimits"))
    logged, told, *raised = done.stdout.splitlines()
    assert logged.startswith("logged: ")
    assert logged.endswith(f"stay undecided: {cause}"), "who asks for prose only is told to leave out something else"
    assert told == "None None False"
    assert raised == [f"{cause}, or leave out the thoughts that must be run: 'pot' and 'eot' []"] * 3


def test_the_filter_is_known_for_two_architectures() -> None:
    for machine in ("x86_64", "aarch64"):
        code = confinement.seccomp_filter(machine)
        assert code is not None
        assert len(code) == 8 * (len(confinement.CALLS) + 6)
    assert confinement.seccomp_filter("riscv64") is None
    numbers = [[call[column] for call in confinement.CALLS.values()] for column in (0, 1)]
    assert all(len(set(column)) == len(column) for column in numbers), "two calls have one number"


def test_a_zygote_that_died_between_programs_is_replaced(sandbox: Sandbox) -> None:
    victim = server(sandbox)
    victim.kill()
    wait_until(lambda: is_gone(victim.pid))
    wait_until(lambda: not victim.is_running())
    assert sandbox.run(SUM).value == "42"


@pytest.mark.parametrize("keeper", [True, False], ids=["the keeper", "the server"])
def test_a_zygote_that_dies_under_a_program_is_replaced(sandbox: Sandbox, keeper: bool) -> None:
    forks = server(sandbox)
    victim = forks.parent() if keeper else forks
    assert victim is not None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sandbox.run, LONG)
        wait_until(lambda: len(forks.children()) == 1)
        (child,) = forks.children()
        began = time.monotonic()
        victim.kill()
        assert running.result() == Outcome(None, "crashed")
        assert time.monotonic() - began < 10, "it waited for the program's limit"
    wait_until(lambda: is_gone(child.pid) and is_gone(forks.pid))
    assert sandbox.run(SUM).value == "42"


def test_a_zygote_that_hangs_is_replaced() -> None:
    with Sandbox(Limits(timeout_s=0.5)) as sandbox:
        forks = server(sandbox)
        forks.suspend()
        began = time.monotonic()
        assert sandbox.run(SUM) == Outcome(None, "time")
        assert time.monotonic() - began < 2
        assert sandbox.run(SUM).value == "42"
        wait_until(lambda: is_gone(forks.pid))


def test_nothing_is_left_after_closing() -> None:
    before = processes()
    with Sandbox(Limits(timeout_s=0.5)) as sandbox:
        sandbox.run("while True: pass")
        sandbox.solve(["x = 1"], "x")
        wait_until(lambda: len(processes() - before) == 4)  # a keeper and a server of each tier
    assert processes() <= before
    sandbox.close()
    assert sandbox.run(SUM).value == "42", "a closed sandbox starts again"
    del sandbox
    assert processes() <= before, "one that nobody holds any more lives on"


def test_nothing_is_left_after_its_owner_is_killed() -> None:
    script = f"""
import psutil, threading, time
from retort.solvers.zygote import Sandbox
sandbox = Sandbox()
sandbox.run(""), sandbox.solve([], "x")
threading.Thread(target=sandbox.run, args=({LONG!r},)).start()
while len(found := psutil.Process().children(recursive=True)) < 5: time.sleep(0.01)
print([process.pid for process in found], flush=True)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids: list[int] = json.loads(owner.stdout.readline())
    assert not any(map(is_gone, pids))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: all(map(is_gone, pids)), timeout_s=3)


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(sandbox.run, [f"ans = {number} * 2" for number in range(200)]))
    assert [outcome.value for outcome in outcomes] == [str(number * 2) for number in range(200)]


def test_a_thread_may_start_a_sandbox_and_end_before_it() -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox()) or made[0].run(SUM))
    thread.start()
    thread.join()
    with made[0] as sandbox:
        started = keepers()
        time.sleep(0.2)
        assert sandbox.run(SUM).value == "42"
        assert keepers() == started, "the zygote went with the thread that had started it"


def test_a_fork_of_the_owner_has_zygotes_of_its_own(sandbox: Sandbox) -> None:
    sandbox.run(SUM)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    fork = context.Process(target=lambda: sender.send([sandbox.run(f"ans = {number}").value for number in range(20)]))
    fork.start()
    ours = [sandbox.run(f"ans = {number + 100}").value for number in range(20)]
    assert receiver.recv() == [str(number) for number in range(20)]
    assert ours == [str(number + 100) for number in range(20)]
    fork.join()
    assert fork.exitcode == 0
    assert sandbox.run(SUM).value == "42"


def test_the_answer_to_an_interrupted_question_is_not_taken_for_the_next(sandbox: Sandbox) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(1)\nans = 1")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sandbox.run("ans = 2").value == "2"


@pytest.mark.parametrize("tier", ["standard", "science"])
def test_a_program_whose_result_is_no_text_costs_nobody_else_anything(sandbox: Sandbox, tier: str) -> None:
    library = "import sympy\n" if tier == "science" else ""
    broken = library + "import os\nwrite = os.write\nos.write = lambda fd, data: write(fd, data + b'\\xff')\nans = 1"
    assert sandbox.run(library + SUM).value == "42"
    started = keepers()
    assert [sandbox.run(broken) for _ in range(20)] == [Outcome(None, "crashed")] * 20
    assert sandbox.run(library + SUM).value == "42"
    assert keepers() == started


def send_unasked(sandbox: Sandbox, program: str) -> _Zygote:
    """Have the zygote send a frame that nobody waits for."""
    sandbox.run(SUM)
    zygote = sandbox._zygotes["standard"]
    body = json.dumps({"mark": "0" * 16, "do": "run", "text": program}).encode()
    zygote._socket.sendall(len(body).to_bytes(4, "big") + body)
    return zygote


def test_a_frame_that_answers_something_else_ends_the_zygote_and_shifts_nothing(sandbox: Sandbox) -> None:
    zygote = send_unasked(sandbox, "import time\ntime.sleep(0.5)\nans = 1")
    assert sandbox.run("ans = 2") == Outcome(None, "crashed")
    assert [sandbox.run(f"ans = {number}").value for number in range(3, 6)] == ["3", "4", "5"]
    assert sandbox._zygotes["standard"] is not zygote


def test_a_frame_that_waits_unread_costs_the_next_program_nothing(sandbox: Sandbox) -> None:
    zygote = send_unasked(sandbox, "ans = 1")
    wait_until(lambda: not zygote.is_alive())
    assert [sandbox.run(f"ans = {number}").value for number in range(3, 6)] == ["3", "4", "5"]
    assert sandbox._zygotes["standard"] is not zygote


@pytest.mark.usefixtures("ray_session")
def test_it_works_inside_ray() -> None:
    import ray

    def ask() -> tuple[Outcome, Outcome, bool | None]:
        with Sandbox(Limits(timeout_s=2)) as sandbox:
            return sandbox.run(SUM), sandbox.run("while True: pass"), sandbox.same("\\frac{1}{2}", "0.5")

    class Actor:
        def ask(self) -> tuple[Outcome, Outcome, bool | None]:
            return ask()

    expected = (Outcome("42", None), Outcome(None, "time"), True)
    assert ray.get(ray.remote(ask).remote()) == expected
    threaded: Any = ray.remote(Actor)  # Ray's types take it for a function
    actor = threaded.options(max_concurrency=2).remote()
    assert ray.get([actor.ask.remote(), actor.ask.remote()]) == [expected] * 2
