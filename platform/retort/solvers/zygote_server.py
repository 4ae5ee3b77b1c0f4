r"""The zygote: a process that has loaded everything programs may need, and forks one child for each of them.

Started by `zygote.Sandbox` with a socket, a tier and the limits; reads one request after the other and answers each:

    {"mark": "5f09", "do": "run", "text": "ans = 6 * 7"}                            5f09v42
    {"mark": "c2e1", "do": "solve", "equations": ["x / 0 = 3"], "unknown": "x"}     c2e1rno_solution
    {"mark": "77ab", "do": "same", "answer": "\\frac{1}{2}", "gold": "0.5"}         77abvTrue

A frame is its length in four bytes and its body. What comes back from a child is data that the program may have
written: a token that only this child was given, `v` or `r`, and a text in UTF-8. Anything else is `crashed`.

Two processes: the keeper, which made the namespaces and waits, and the server, which is process 1 in them. When the
owner closes its end of the socket or dies, the server ends, and with it whatever it started.
"""

import contextlib
import datetime
import gc
import importlib
import json
import logging
import math
import os
import random
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from retort.solvers import Outcome, confinement, zygote_run

STANDARD = (
    *("abc", "array", "base64", "bisect", "calendar", "cmath", "collections.abc", "colorsys", "copy", "csv"),
    *("dataclasses", "decimal", "difflib", "enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "inspect"),
    *("io", "itertools", "locale", "math", "numbers", "operator", "pprint", "queue", "re", "secrets", "statistics"),
    *("string", "struct", "textwrap", "threading", "timeit", "traceback", "types", "typing", "unicodedata", "uuid"),
    *("__future__", "_strptime", "encodings.ascii", "encodings.latin_1", "encodings.utf_16", "encodings.utf_32"),
)
OPTIONAL = ("dateutil.easter", "dateutil.parser", "dateutil.relativedelta", "dateutil.rrule", "dateutil.tz")
MAX_RESULT = 20_000  # bytes of a result: the longest value in UTF-8, and its head
TOKEN_BYTES = 16
RESULT_FD = 3  # of a child: what it has open beyond the standard three
SOCKET_FD = 4
MAX_FD = 64  # every descriptor of the server is below
CPU_SLACK_S = 1  # above the wall limit, which ends a program first unless this process lags behind
DYING_S = 0.1  # from the end of a child's output to its death; one that lives on closed the pipe itself

Request = dict[str, Any]
Action = Callable[[Request, zygote_run.Reply], Outcome]


def main() -> NoReturn:
    """Load, confine, serve. Arguments: the socket, the tier, the limits as JSON."""
    given, tier, limits = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    socket = confinement.only_descriptor(given, SOCKET_FD, MAX_FD)
    actions = load(tier, limits["output_bytes"])
    memory_bytes = confinement.address_space() + (limits["memory_mib"] << 20)
    confinement.prefer_as_victim()
    gc.collect()
    gc.freeze()  # so that a child's collector copies no page that is shared
    has_namespaces = confinement.enter_namespaces()
    child = os.fork()
    if child != 0:
        os.close(socket)
        os.waitpid(child, 0)
        os._exit(0)
    confinement.drop_privileges()
    code = confinement.seccomp_filter(os.uname().machine)
    has_seccomp = code is not None and confinement.filter_works(code)
    layers = ["namespaces"] * has_namespaces + ["seccomp"] * has_seccomp + ["rlimits"]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the owner is gone
        send(socket, ",".join(layers).encode())
        if code is not None and has_seccomp:
            Server(socket, actions, code, memory_bytes, limits["timeout_s"]).serve()
    os._exit(0)


def load(tier: str, output_bytes: int) -> dict[str, Action]:
    """Import and warm up what a tier offers, for afterwards no file can be opened; what it can be asked to do."""
    for name in STANDARD:
        importlib.import_module(name)
    datetime.datetime.strptime("2024", "%Y")
    time.tzset()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if tier == "standard":
        return {"run": lambda request, reply: zygote_run.run(request["text"], output_bytes, lambda value: value, reply)}
    for name in OPTIONAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import numpy as np

    from retort.solvers import zygote_algebra

    zygote_algebra.warm_up()
    np.random.seed(0)  # where a program's own np.random.rand() starts
    return {
        "run": lambda request, reply: zygote_run.run(request["text"], output_bytes, zygote_algebra.plain, reply),
        "solve": lambda request, _: zygote_algebra.solve(request["equations"], request["unknown"]),
        "same": lambda request, _: zygote_algebra.same(request["answer"], request["gold"]),
    }


class Server:
    """Forks a child for each request, watches it and says what became of it."""

    def __init__(
        self, socket: int, actions: dict[str, Action], code: bytes, memory_bytes: int, timeout_s: float
    ) -> None:
        self._socket, self._actions, self._code = socket, actions, code
        self._memory_bytes, self._timeout_s = memory_bytes, timeout_s
        self._pid = os.getpid()

    def serve(self) -> None:
        """Answer one request after the other until the owner closes its end."""
        while (request := receive(self._socket)) is not None:
            asked = json.loads(request)
            body, child = self.answer(asked)
            send(self._socket, asked["mark"].encode() + body)
            end(child)  # while the owner reads

    def answer(self, request: Request) -> tuple[bytes, int]:
        """`v` and a value or `r` and a reason, in UTF-8 with lone surrogates; and the child, yet to be ended."""
        deadline = time.monotonic() + self._timeout_s
        token = os.urandom(TOKEN_BYTES)
        results, output = os.pipe()
        child = os.fork()
        if child == 0:
            self._be_child(request, token, output)
        os.close(output)
        body = self._collect(results, deadline)
        os.close(results)
        if body is None:
            return b"rtime", child
        if is_result(body, token):
            return body[TOKEN_BYTES:], child
        return b"r" + reason_of_death(child), child

    def _collect(self, results: int, deadline: float) -> bytes | None:
        """All that a child writes until it closes its end or has written too much; None where it takes too long."""
        poll = select.poll()
        poll.register(results, select.POLLIN)
        poll.register(self._socket, 0)  # reports only that the other end is closed
        body = b""
        while len(body) <= MAX_RESULT:
            ready = dict(poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))))
            if self._socket in ready:
                os._exit(0)  # the owner is gone, and the child follows its parent
            if not ready:
                return None
            chunk = os.read(results, MAX_RESULT)
            if not chunk:
                break
            body += chunk
        return body

    def _be_child(self, request: Request, token: bytes, output: int) -> NoReturn:
        """Run the request in this process, under all layers, write its result and end."""
        out_of_memory = token + b"rmemory"

        def reply(outcome: Outcome) -> NoReturn:
            tag, text = ("v", outcome.value) if outcome.reason is None else ("r", outcome.reason)
            os.write(RESULT_FD, token + f"{tag}{text}".encode("utf-8", "surrogatepass"))
            os._exit(0)

        try:
            os.dup2(0, 2)  # /dev/null
            os.dup2(output, RESULT_FD)
            os.closerange(RESULT_FD + 1, MAX_FD)
            random.seed(0)  # the same program draws the same numbers
            confinement.die_with_parent()
            if os.getppid() != self._pid:  # it died before that
                os._exit(1)
            confinement.limit_resources(self._memory_bytes, self._timeout_s + CPU_SLACK_S)
            if not confinement.load_filter(self._code):
                os._exit(1)
            reply(self._actions[request["do"]](request, reply))
        except MemoryError:
            os.write(RESULT_FD, out_of_memory)
        finally:
            os._exit(1)


def is_result(body: bytes, token: bytes) -> bool:
    """Whether a child has written what it was to write: a program may have made it write something else."""
    if len(body) > MAX_RESULT or not body.startswith((token + b"v", token + b"r")):
        return False
    try:
        body[TOKEN_BYTES:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def end(child: int) -> None:
    """Kill and reap a child. It has none of its own: no call that starts a process is let through."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def reason_of_death(child: int) -> bytes:
    """Why a child left no result. Only the kernel kills one before its time is up, and that for want of memory."""
    give_up = time.monotonic() + DYING_S
    # WNOWAIT leaves it to be reaped by `end`: until then its number is its own.
    while not (gone := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
        if time.monotonic() > give_up:
            break
        time.sleep(0.001)
    if gone is None or gone.si_code not in (os.CLD_KILLED, os.CLD_DUMPED):
        return b"crashed"
    return {int(signal.SIGKILL): b"memory", int(signal.SIGXCPU): b"time"}.get(gone.si_status, b"crashed")


def send(socket: int, body: bytes) -> None:
    """Write one frame."""
    rest = memoryview(len(body).to_bytes(4, "big") + body)
    while rest:
        rest = rest[os.write(socket, rest) :]


def receive(socket: int) -> bytes | None:
    """Read one frame; None where the other end is closed."""
    head = _read(socket, 4)
    return head and _read(socket, int.from_bytes(head, "big"))


def _read(socket: int, size: int) -> bytes | None:
    body = b""
    while len(body) < size:
        chunk = os.read(socket, size - len(body))
        if not chunk:
            return None
        body += chunk
    return body
