r"""The sandbox: runs the programs that models write, solves their equations and settles their answers, all outside this
process.

    with Sandbox() as sandbox:
        sandbox.run("import math\nans = math.comb(5, 2)")           Outcome("10", None)
        sandbox.run("while True: pass")                             Outcome(None, "time")
        sandbox.run("open('/etc/passwd')")                          Outcome(None, "raised PermissionError")
        sandbox.solve(["x ** 2 - x = 6"], "x")                      Outcome("3", None)
        sandbox.same("\\frac{1}{2}", "0.5")                         True

A *zygote* (`zygote_server`) has loaded what programs may import and forks a child for each, which the kernel confines
(`confinement`). There are two: one with the standard library, and one with SymPy, NumPy, dateutil and math-verify too,
whose children take longer to fork; a program gets the one that its words ask for. Each starts when it is first needed
and is replaced when it dies. A program has CPython's own semantics, its random numbers start from a fixed seed, and its
sets have one order, so that its outcome is the same on every machine, unless it asks for the time.

Linux only, on x86_64 and aarch64. Where the kernel grants no namespaces, as in many containers, seccomp and rlimits are
enough to hold programs; without seccomp nothing runs: `run` and `solve` raise NoSandboxError, `same` cannot tell.
"""

import builtins
import json
import logging
import os
import re
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from retort.solvers import Outcome

logger = logging.getLogger(__name__)

MAX_PROGRAM = 20_000  # characters; the longest recorded program has 3,900
MAX_VALUE = 4_000  # characters
MAX_REPLY = 1 << 15  # bytes of a frame; the server sends less
MARK_BYTES = 8  # of chance, which tell the reply to one request from any other frame
START_S = 120.0  # to import SymPy on a machine that does much else
GRACE_S = 0.8  # that a zygote may take to report, beyond the limit of the program
PATIENCE_S = 2.0  # for a zygote to end by itself

SCIENCE = re.compile(r"\b(?:sympy|numpy|dateutil|math_verify)\b")

EXCEPTIONS = {
    kind.__name__ for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
}
RUN_REASONS = (
    "syntax",
    "time",
    "memory",
    "output",
    "no_answer",
    "not_a_number",
    "too_long",
    "crashed",
    *sorted(f"raised {name}" for name in EXCEPTIONS),
)
"""Why a program has no value: it is no Python; ran out of wall time, memory or room to print; left no answer, or one
that is neither a finite number nor a truth value nor a short text; is longer than 20,000 characters; died without a
well-formed result; or raised an exception, by its name where it is a builtin one, else `Exception`."""

SOLVE_REASONS = ("parse", "no_solution", "several_solutions", "symbolic", "time", "memory", "too_long", "crashed")
"""Why an unknown has no value: the equations cannot be read; have no real solution, or none that SymPy finds; leave
several values, of which not exactly one is positive; leave it in terms of other unknowns; and as for programs."""

Tier = Literal["standard", "science"]


class Limits(BaseModel):
    """What one program may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(default=5.0, gt=0, le=3600)
    """Wall time."""
    memory_mib: int = Field(default=512, ge=16, le=1 << 20)
    """Address space beyond what the loaded interpreter has. The recorded programs do with 16; with 512, one for each
    core of a small node still fits its memory, and a loop that only allocates is ended within a second or two."""
    output_bytes: int = Field(default=65_536, ge=0, le=1 << 24)
    """What it may print, in UTF-8."""


class NoSandboxError(RuntimeError):
    """This machine cannot hold a program that a model wrote. The argument: why, and what to do."""

    def __str__(self) -> str:
        return f"{self.args[0]}, or leave out the thoughts that must be run: 'pot' and 'eot'"


class Sandbox:
    """Two zygotes, started on first need. Threads may share it and take turns on a tier. Close it, or use `with`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._zygotes: dict[Tier, _Zygote] = {}
        self._locks: dict[Tier, threading.Lock] = {"standard": threading.Lock(), "science": threading.Lock()}
        self._is_refused = False
        weakref.finalize(self, _stop_all, self._zygotes)

    def run(self, program: str) -> Outcome:
        """The value of `ans` after a program, else its last printed line that is not empty; or a `RUN_REASONS`."""
        if len(program) > MAX_PROGRAM:
            return Outcome(None, "too_long")
        tier: Tier = "science" if SCIENCE.search(program) else "standard"
        return self._ask(tier, RUN_REASONS, {"do": "run", "text": program})

    def solve(self, equations: Sequence[str], unknown: str) -> Outcome:
        """The value of an unknown in a system of equations `lhs = rhs` of Python arithmetic; or a `SOLVE_REASONS`.

        Names, numbers, `+ - * / **`, `abs min max round floor ceil sqrt`; decimals are exact. The value is a whole
        number or `p/q`, and a decimal where it is irrational. Roots that are not real do not count.
        """
        if len(unknown) + sum(map(len, equations)) > MAX_PROGRAM:
            return Outcome(None, "too_long")
        return self._ask("science", SOLVE_REASONS, {"do": "solve", "equations": list(equations), "unknown": unknown})

    def same(self, answer: str, gold: str) -> bool | None:
        """Whether math-verify takes two answers, read as LaTeX, for the same; None where it cannot tell.

        It cannot in time, nor where one is a ratio or a time (`1:2`), nor on a machine that has no sandbox.
        """
        if self._is_refused or len(answer) + len(gold) > MAX_PROGRAM:
            return None
        try:
            value = self._ask("science", SOLVE_REASONS, {"do": "same", "answer": answer, "gold": gold}).value
        except NoSandboxError as error:  # prose needs no sandbox, but for the few answers that are no plain numbers
            self._is_refused = True
            logger.warning("sandbox: answers that only computer algebra can compare stay undecided: %s", error.args[0])
            return None
        return {"True": True, "False": False}.get(value or "")

    @property
    def layers(self) -> tuple[str, ...]:
        """The protections in force: of `namespaces`, `seccomp` and `rlimits` those that this machine grants."""
        with self._locks["standard"]:
            return self._zygote("standard").layers

    @property
    def is_in_use(self) -> bool:
        """Whether anything had to be run since it was made or closed."""
        return bool(self._zygotes)

    def close(self) -> None:
        """End the zygotes and wait for them. A later call starts new ones."""
        for tier, lock in self._locks.items():
            with lock:
                self._discard(tier)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, tier: Tier, reasons: Sequence[str], request: dict[str, object]) -> Outcome:
        with self._locks[tier]:
            zygote = self._zygote(tier)
            reply = ""
            try:
                reply = zygote.ask(request, self._limits.timeout_s + GRACE_S)
            except TimeoutError:
                return Outcome(None, "time")
            except (OSError, UnicodeDecodeError):
                logger.warning("sandbox: the %s zygote died; the next program gets a new one", tier)
                return Outcome(None, "crashed")
            finally:
                if not reply:  # also where a signal interrupts us: its answer must not be taken for the next one
                    self._discard(tier, patience_s=0)
        kind, text = reply[:1], reply[1:]
        if kind == "v" and 0 < len(text) <= MAX_VALUE:
            return Outcome(text, None)
        return Outcome(None, text if kind == "r" and text in reasons else "crashed")

    def _zygote(self, tier: Tier) -> "_Zygote":
        zygote = self._zygotes.get(tier)
        if zygote is None or not zygote.is_alive():
            self._discard(tier)
            zygote = self._zygotes[tier] = _Zygote(tier, self._limits)
        return zygote

    def _discard(self, tier: Tier, patience_s: float = PATIENCE_S) -> None:
        if zygote := self._zygotes.pop(tier, None):
            zygote.stop(patience_s)


class _Zygote:
    """One running zygote and the socket to it."""

    def __init__(self, tier: Tier, limits: Limits) -> None:
        if complaint := refusal(sys.platform, ("seccomp", "rlimits")):
            raise NoSandboxError(complaint)
        began = time.monotonic()
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        self._unread = select.poll()
        self._unread.register(self._socket, select.POLLIN)
        # As `-I`, but for the seed of hashes, which `-I` would ignore. It sees no PYTHONPATH, and another retort may be
        # installed: this one is found by its place, which is on the path for that one import only.
        root = str(Path(__file__).resolve().parents[2])
        start = "import sys; sys.path.insert(0, sys.argv.pop()); import retort; del sys.path[0]"
        start += "; from retort.solvers import zygote_server; zygote_server.main()"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", start, str(theirs.fileno()), tier, limits.model_dump_json(), root],
                env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},  # with threads no namespace can be entered
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the owner
            )
        try:
            self.layers = tuple(self._receive(time.monotonic() + START_S).split(","))
        except OSError as error:
            self.stop()
            raise RuntimeError(f"the {tier} zygote of the sandbox did not start; what it said is on stderr") from error
        if complaint := refusal(sys.platform, self.layers):
            self.stop()
            raise NoSandboxError(complaint)
        took_s = time.monotonic() - began
        logger.info("sandbox: %s tier ready in %.1f s, protected by %s", tier, took_s, ", ".join(self.layers))

    def is_alive(self) -> bool:
        """Whether it can be asked: not if there is something to read already, which would answer the next program.

        In a fork of the owner it cannot either, as two would read one socket.
        """
        return self._owner == os.getpid() and self._process.poll() is None and not self._unread.poll(0)

    def ask(self, request: dict[str, object], timeout_s: float) -> str:
        """Its reply. Raises TimeoutError; another OSError or UnicodeDecodeError where it died or answers amiss."""
        deadline = time.monotonic() + timeout_s
        mark = secrets.token_hex(MARK_BYTES)
        body = json.dumps({"mark": mark, **request}).encode()
        self._socket.settimeout(timeout_s)
        self._socket.sendall(len(body).to_bytes(4, "big") + body)
        reply = self._receive(deadline)
        if not reply.startswith(mark):
            raise ConnectionError("a frame that is no reply to this request")
        return reply.removeprefix(mark)

    def stop(self, patience_s: float = PATIENCE_S) -> None:
        """Close the socket, at which it ends with all it started, and wait; kill it where it does not."""
        self._socket.close()
        if self._owner != os.getpid():
            return
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self, deadline: float) -> str:
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > MAX_REPLY:
            raise ConnectionError(f"a reply of {size} bytes")
        return self._read(size, deadline).decode("utf-8", "surrogatepass")

    def _read(self, size: int, deadline: float) -> bytes:
        body = b""
        while len(body) < size:
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
            chunk = self._socket.recv(size - len(body))
            if not chunk:
                raise ConnectionError("closed")
            body += chunk
        return body


def refusal(platform: str, layers: Sequence[str]) -> str | None:
    """Why nothing may run on a platform with these layers, and what to do; None where it may.

    Namespaces alone do not do: a program could trace the zygote, which is of the same user, and answer for others.
    """
    if platform != "linux":
        return (
            f"programs that models write can be run on Linux only, not on {platform!r}: start retort in a container or "
            "on a Linux machine"
        )
    if "seccomp" not in layers:
        return (
            "the kernel grants the sandbox no seccomp filter, and without one programs that models write are not run: "
            "use x86_64 or aarch64 and a container that allows prctl(PR_SET_SECCOMP)"
        )
    return None


def _stop_all(zygotes: dict[Tier, _Zygote]) -> None:
    while zygotes:
        zygotes.popitem()[1].stop()
