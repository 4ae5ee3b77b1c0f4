"""Runs programs in a process that the kernel forbids to make namespaces, as container engines do.

`{name: [program, timeout_s]}` as JSON on stdin; on stdout `[layers, {name: what the program said}]`.
"""

import ctypes
import json
import os
import struct
import sys

from attacks.table import said
from retort.solvers.zygote import Limits, Sandbox

UNSHARE = {"x86_64": 272, "aarch64": 97}
PRCTL = {"x86_64": 157, "aarch64": 167}
PR_SET_SECCOMP = 22
NUM_DESCRIPTORS = 400
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
CALL_NUMBER, FIRST_ARGUMENT = 0, 16
ALLOW, FAIL = 0x7FFF0000, 0x00050001


def forbid(call: dict[str, int], argument: int | None = None) -> None:
    """Load a seccomp filter under which one call, with this first argument, fails with EPERM and all else goes."""
    checks = [(LOAD, 0, 0, FIRST_ARGUMENT), (JUMP_IF_EQUAL, 0, 1, argument)] if argument is not None else []
    rules = [
        (LOAD, 0, 0, CALL_NUMBER),
        (JUMP_IF_EQUAL, 0, len(checks) + 1, call[os.uname().machine]),
        *checks,
        (RETURN, 0, 0, FAIL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    assert libc.prctl(38, 1, None, 0, 0) == 0
    program = struct.pack("@HP", len(rules), ctypes.addressof(code))
    assert libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0) == 0


def crowd() -> list[int]:
    """Open many descriptors, so that whatever is opened for a sandbox afterwards has a high number."""
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(NUM_DESCRIPTORS)]


def main() -> None:
    """Run them all, one sandbox for each limit, with many descriptors open."""
    programs: dict[str, tuple[str, float]] = json.load(sys.stdin)
    forbid(UNSHARE)
    crowd()
    sandboxes = {
        timeout_s: Sandbox(Limits(timeout_s=timeout_s, memory_mib=256))
        for timeout_s in {s for _, s in programs.values()}
    }
    layers = {sandbox.layers for sandbox in sandboxes.values()}
    outcomes = {name: said(sandboxes[timeout_s].run(program)) for name, (program, timeout_s) in programs.items()}
    for sandbox in sandboxes.values():
        sandbox.close()
    print(json.dumps([sorted(layers), outcomes]))


if __name__ == "__main__":
    main()
