"""What the kernel takes from the zygote and from each program that it runs: namespaces, seccomp, rlimits.

Three layers, none of which trusts Python. *seccomp*: of the kernel's 400-odd calls a program keeps the thirty below,
which compute, wait and write to what is open; every other one fails with EPERM. *rlimits*: memory, CPU time, no
processes, no files. *Namespaces*, where the kernel grants them: an empty read-only file system, no network, no foreign
process in sight.

Runs inside the zygote, standard library only. The filter is built here, byte by byte, so that no library is needed;
it is known for x86_64 and aarch64. Not covered: side channels, and bugs of the kernel.
"""

import contextlib
import ctypes
import errno
import math
import os
import resource
import signal
import struct
from pathlib import Path

# Numbers of the calls that a program keeps on x86_64 and aarch64. None opens, connects, starts, signals or looks up.
CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "nanosleep": (35, 101),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_…, column above

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
CALL_NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000  # SECCOMP_RET_…

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CLONE_NEW = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000  # NS UTS IPC USER PID NET
MS_READ_ONLY = 1 | 2 | 4 | 8  # MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC
MS_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
NOBODY = 65534

_libc = ctypes.CDLL(None)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]


def seccomp_filter(machine: str) -> bytes | None:
    """The BPF program that lets `CALLS` through, or None for an architecture whose numbers are not in the table."""
    if machine not in ARCHITECTURES:
        return None
    architecture, column = ARCHITECTURES[machine]
    numbers = [call[column] for call in CALLS.values()]
    # A jump counts instructions behind the next one: from check i of n to the last line it is n - i. Numbers of the
    # x32 interface have bit 30 set and so equal none.
    checks = [(JUMP_IF_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, CALL_NUMBER),
        *checks,
        (RETURN, 0, 0, FAIL),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def load_filter(code: bytes) -> bool:
    """Put this process under a BPF program, for good. False where the kernel refuses."""
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    return _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) == 0


def filter_works(code: bytes) -> bool:
    """Whether a process under the filter really cannot open a file: tried in a child."""
    child = os.fork()
    if child == 0:
        try:
            if load_filter(code):
                os.open("/", os.O_RDONLY)
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def enter_namespaces() -> bool:
    """Move this process, which must have one thread, into namespaces of its own, with an empty root. False if refused.

    The next child is process 1 of its process namespace. Containers often refuse; then nothing is lost but this layer.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEW) != 0:
        return False
    root = os.fsencode(Path(__file__).parent)  # any folder that is sure to be there
    try:
        for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", file).write_text(text, encoding="ascii")
        if (
            _libc.mount(b"none", b"/", None, MS_PRIVATE, None) != 0
            or _libc.mount(b"none", root, b"tmpfs", MS_READ_ONLY, b"size=4k") != 0
        ):
            return False
        os.chroot(root)
        os.chdir("/")
    except OSError:
        return False
    return True


def drop_privileges() -> None:
    """Give up every capability, and root where it is real; die with the parent; gain nothing by exec."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace with one user there is nobody to become
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3, this process
    _libc.capset(header, nothing)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0)
    die_with_parent()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Lost at a change of user."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, None, 0, 0)


def only_descriptor(given: int, wanted: int, limit: int) -> int:
    """Move a descriptor to the number `wanted` and close those above; from now on all are below `limit`, for good.

    So a child can close them all in no time. One that is left open to a program is a way out for it.
    """
    if given != wanted:
        os.dup2(given, wanted, inheritable=False)
        os.close(given)
    os.closerange(wanted + 1, limit)
    _limit(resource.RLIMIT_NOFILE, limit)
    return wanted


def prefer_as_victim() -> None:
    """When memory runs out, let the kernel end this process and its children before others."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def limit_resources(memory_bytes: int, cpu_s: float) -> None:
    """Set the rlimits of one program: no file, no process, no core dump; never above what this process may have."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: math.ceil(cpu_s),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 8,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for which, wanted in limits.items():
        _limit(which, wanted)


def _limit(which: int, wanted: int) -> None:
    highest = resource.getrlimit(which)[1]
    value = wanted if highest == resource.RLIM_INFINITY else min(wanted, highest)
    resource.setrlimit(which, (value, value))
