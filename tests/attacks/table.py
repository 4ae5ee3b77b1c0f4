"""Programs that try to leave the sandbox, to outlive it, to exhaust it or to fool it.

FILE, FOLDER, PORT and VARIABLE stand for canaries: a file that holds `SECRET`, its folder, a port of the loopback that
somebody listens on, and an environment variable of the owner that holds `SECRET`.
"""

from typing import NamedTuple

from retort.solvers import Outcome

SECRET = "canary-4711"


class Attack(NamedTuple):
    """A program and the outcomes that it may have: reasons, or values as `= 42`."""

    program: str
    outcomes: tuple[str, ...]
    touches: bool = False
    """Outside the sandbox it harms a canary: changes the folder, connects, or leaves the secret in `ans`."""

    @property
    def timeout_s(self) -> float:
        """Short for what runs into its limit, long for what must not, however busy the machine."""
        return 0.3 if "time" in self.outcomes else 20


def said(outcome: Outcome) -> str:
    """An outcome as the table writes it."""
    return outcome.reason or f"= {outcome.value}"


REFUSED = ("raised PermissionError",)
# Without a file system the file is not there; without the call it is refused. Either is right.
NO_FILE = ("raised PermissionError", "raised FileNotFoundError")
NO_SHELL = ("= 32512", "= -1", *REFUSED)  # the shell could not be started: status 127, or no status
NO_MODULE = ("raised ModuleNotFoundError",)
TIME = ("time",)
MEMORY = ("memory",)
CRASHED = ("crashed",)

OS = "import os\n"

ATTACKS: dict[str, Attack] = {
    # Time.
    "an endless loop": Attack("while True: pass", TIME),
    "an endless loop that catches everything": Attack(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass", TIME
    ),
    "an endless loop that ignores every signal": Attack(
        "import signal\nfor number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        TIME,
    ),
    "a loop inside C": Attack("ans = sum(range(10 ** 11))", TIME),
    "a power tower": Attack("ans = 10 ** 10 ** 9", TIME),
    "a power that is folded by the compiler": Attack("ans = (10 ** 10 ** 8) % 7", TIME),
    "a factorial": Attack("import math\nans = math.factorial(10 ** 7)", TIME),
    "a regex bomb": Attack("import re\nans = bool(re.match('(a+)+$', 'a' * 64 + 'b'))", TIME),
    "sleeping": Attack("import time\ntime.sleep(3600)\nans = 1", TIME),
    "waiting for a lock": Attack("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", TIME),
    "a generator without end": Attack("import itertools\nans = max(itertools.count())", TIME),
    "a hostile __del__": Attack("class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a", TIME),
    "asking for input": Attack("ans = int(input())", ("raised EOFError",)),
    # Memory and size.
    "a string of a terabyte": Attack("ans = len('a' * 10 ** 12)", MEMORY),
    "a list of a terabyte": Attack("ans = len([0] * 10 ** 12)", MEMORY),
    "a list that grows": Attack("a = []\nwhile True: a.append('x' * 100_000)", MEMORY),
    "a list that grows in small steps": Attack("a = []\nwhile True: a.append([len(a)] * 200)", MEMORY),
    "a list in a function that grows": Attack("def f():\n    a = [1]\n    while True: a.extend(a)\nf()", MEMORY),
    "memory that is caught and asked for again": Attack(
        "a = []\nwhile True:\n    try: a.append(bytearray(10 ** 7))\n    except MemoryError: pass", TIME
    ),
    "a mapping of a terabyte": Attack(
        "import mmap\nans = len(mmap.mmap(-1, 10 ** 12))", (*MEMORY, *NO_MODULE, "raised OSError")
    ),
    "recursion": Attack("def f(): return f()\nans = f()", ("raised RecursionError",)),
    "recursion without a limit": Attack(
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nans = f()", (*MEMORY, *TIME, *CRASHED)
    ),
    "recursion in C without a limit": Attack(
        "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(self): return repr(self)\n"
        "ans = repr(A())",
        (*MEMORY, *TIME, *CRASHED),
    ),
    "a tuple nested ten million deep": Attack(
        "a = ()\nfor _ in range(10 ** 7): a = (a,)\nans = hash(a)", (*CRASHED, *MEMORY, *TIME, "raised RecursionError")
    ),
    "endless printing": Attack("while True: print('x' * 1000)", ("output",)),
    "printing that catches everything": Attack(
        "while True:\n    try: print('x' * 1000)\n    except BaseException: pass", ("output",)
    ),
    "printing past sys.stdout": Attack(
        f"{OS}while True:\n    os.write(1, b'x' * 1000)\n    os.write(2, b'x' * 1000)", TIME
    ),
    "printing a hundred million characters at once": Attack("print('x' * 10 ** 8)", ("output",)),
    "an integer that is too long to write": Attack("ans = 10 ** 5000", ("not_a_number",)),
    "an integer of a hundred megabytes": Attack("ans = 1 << 8 * 10 ** 8", ("not_a_number", *TIME)),
    "the digit limit raised": Attack(
        "import sys\nsys.set_int_max_str_digits(0)\nans = 10 ** 3_000_000", ("not_a_number", *TIME)
    ),
    "printing an integer that is too long": Attack("print(10 ** 5000)", ("raised ValueError",)),
    "a decimal with a huge exponent": Attack(
        "from decimal import Decimal\nans = Decimal('1e999999')", ("not_a_number",)
    ),
    "a fraction of huge parts": Attack(
        "from fractions import Fraction\nans = Fraction(10 ** 5000, 3 ** 5000)", ("not_a_number",)
    ),
    "a text of megabytes": Attack("ans = 'x' * 10 ** 7", ("not_a_number",)),
    # Files.
    "reading a file": Attack("ans = open('FILE').read()", NO_FILE, touches=True),
    "reading a file through os": Attack(
        f"{OS}ans = os.read(os.open('FILE', os.O_RDONLY), 100).decode()", NO_FILE, touches=True
    ),
    "reading a file through pathlib": Attack(
        "import pathlib\nans = pathlib.Path('FILE').read_text()", (*NO_FILE, *NO_MODULE), touches=True
    ),
    "reading a file through linecache": Attack(
        "import linecache\nans = linecache.getline('FILE', 1)", ("no_answer",), touches=True
    ),
    "writing a file": Attack("open('FILE', 'w').write('gone')\nans = 1", NO_FILE, touches=True),
    "making a file": Attack("open('FOLDER/new', 'x').close()\nans = 1", NO_FILE, touches=True),
    "making a folder": Attack(f"{OS}os.mkdir('FOLDER/new')\nans = 1", NO_FILE, touches=True),
    "making a link": Attack(f"{OS}os.symlink('FILE', 'FOLDER/new')\nans = 1", NO_FILE, touches=True),
    "removing a file": Attack(f"{OS}os.remove('FILE')\nans = 1", NO_FILE, touches=True),
    "renaming a file": Attack(f"{OS}os.rename('FILE', 'FOLDER/new')\nans = 1", NO_FILE, touches=True),
    "changing the mode of a file": Attack(f"{OS}os.chmod('FILE', 0)\nans = 1", NO_FILE, touches=True),
    "listing a folder": Attack(f"{OS}ans = len(os.listdir('/'))", REFUSED),
    "asking for the size of a file": Attack(f"{OS}ans = os.stat('FILE').st_size", NO_FILE),
    "asking whether a file exists": Attack(f"{OS}ans = os.path.exists('FILE')", (*REFUSED, "= False")),
    "asking for the working directory": Attack(f"{OS}ans = os.getcwd()", REFUSED),
    "reading /proc": Attack("ans = open('/proc/self/maps').read()[:50]", NO_FILE),
    "reading the memory of the parent": Attack(
        f"{OS}ans = open(f'/proc/{{os.getppid()}}/mem', 'rb').read(1)", (*NO_FILE, "raised OSError")
    ),
    "another root": Attack(f"{OS}os.chroot('/tmp')\nans = 1", NO_FILE),
    "a module from a file": Attack(
        "import sys\nsys.path.insert(0, 'FOLDER')\nimport canary\nans = canary.secret", NO_MODULE, touches=True
    ),
    "a shared library": Attack(
        "import ctypes\nans = ctypes.CDLL('FILE').abs(-3)", (*NO_MODULE, *CRASHED, "raised OSError")
    ),
    # Network and processes.
    "a connection": Attack(
        "import socket\nsocket.create_connection(('127.0.0.1', PORT)).close()\nans = 1",
        (*NO_MODULE, *REFUSED),
        touches=True,
    ),
    "a connection through _socket": Attack(
        "import _socket\ns = _socket.socket(2, 1)\ns.connect(('127.0.0.1', PORT))\nans = 1",
        (*NO_MODULE, *REFUSED),
        touches=True,
    ),
    "a connection by urllib": Attack(
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT', timeout=0.2)",
        NO_MODULE,
        touches=True,
    ),
    "os.system": Attack(f"{OS}ans = os.system('touch FOLDER/new')", NO_SHELL, touches=True),
    "os.popen": Attack(f"{OS}ans = os.popen('cat FILE').read()", (*REFUSED, *NO_MODULE), touches=True),
    "subprocess": Attack(
        "import subprocess\nans = subprocess.check_output(['cat', 'FILE'], text=True)",
        (*REFUSED, *NO_MODULE),
        touches=True,
    ),
    "os.posix_spawn": Attack(
        f"{OS}os.waitpid(os.posix_spawn('/usr/bin/touch', ['touch', 'FOLDER/new'], {{}}), 0)\nans = 1",
        REFUSED,
        touches=True,
    ),
    "exec": Attack(f"{OS}os.execv('/usr/bin/touch', ['touch', 'FOLDER/new'])", NO_FILE, touches=True),
    "exec from memory": Attack(f"{OS}ans = os.memfd_create('x')", REFUSED),
    "a fork": Attack(f"{OS}os.fork()\nans = 1", REFUSED),
    "a fork bomb": Attack(f"{OS}while True:\n    try: os.fork()\n    except OSError: pass", TIME),
    "a thread": Attack("import threading\nthreading.Thread(target=print).start()\nans = 1", ("raised RuntimeError",)),
    "a thread bomb": Attack(
        "import threading\nwhile True:\n    try: threading.Thread(target=threading.Event().wait).start()\n"
        "    except RuntimeError: pass",
        TIME,
    ),
    "a thread of _thread": Attack(
        "import _thread\n_thread.start_new_thread(print, ())\nans = 1", ("raised RuntimeError",)
    ),
    "a process pool": Attack(
        "import multiprocessing\nwith multiprocessing.Pool(2) as pool: ans = sum(pool.map(abs, [1, 2]))",
        (*NO_MODULE, *REFUSED, "raised OSError", "raised ImportError"),
    ),
    "killing the parent": Attack(f"{OS}os.kill(os.getppid(), 9)\nans = 1", (*REFUSED, "raised ProcessLookupError")),
    "killing everybody": Attack(f"{OS}os.kill(-1, 9)\nans = 1", REFUSED),
    "killing its group": Attack(f"{OS}os.killpg(0, 9)\nans = 1", REFUSED),
    "killing itself": Attack(f"{OS}os.kill(os.getpid(), 9)\nans = 1", REFUSED),
    "stopping itself": Attack(
        "import signal\nsignal.raise_signal(signal.SIGSTOP)\nans = 1", ("= 1", "raised OSError", *REFUSED)
    ),
    "an alarm": Attack("import signal\nsignal.alarm(1)\nwhile True: pass", TIME),
    "leaving its session": Attack(f"{OS}os.setsid()\nans = 1", REFUSED),
    "becoming root": Attack(f"{OS}os.setuid(0)\nans = 1", REFUSED),
    "tracing another process": Attack(
        "import ctypes\nans = ctypes.CDLL(None).ptrace(16, 1, 0, 0)", ("= -1", *NO_MODULE)
    ),
    "a system call of its own": Attack(
        "import ctypes\nans = ctypes.CDLL(None).syscall(39 + 18)",
        ("= -1", *NO_MODULE),  # fork on x86_64
    ),
    "lifting its limits": Attack(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nans = len('a' * 10 ** 9)",
        ("raised OSError", "raised ValueError", *REFUSED, *NO_MODULE, *MEMORY),
    ),
    "lifting the filter": Attack("import ctypes\nans = ctypes.CDLL(None).prctl(22, 0, 0, 0, 0)", ("= -1", *NO_MODULE)),
    # Ways around names that a filter would look for.
    "a module by its name in pieces": Attack(
        "ans = __import__('o' + 's').popen('cat FILE').read()", (*REFUSED, *NO_MODULE), touches=True
    ),
    "a module through another": Attack(
        "import statistics\nans = statistics.sys.modules['os'].popen('cat FILE').read()",
        (*REFUSED, *NO_MODULE),
        touches=True,
    ),
    "a class found among the subclasses of object": Attack(
        "ans = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close']"
        "[0].__init__.__globals__['system']('touch FOLDER/new')",
        NO_SHELL,
        touches=True,
    ),
    "builtins through a function": Attack(
        "found = (lambda: 0).__globals__['__builtins__']\n"
        "ans = (found if isinstance(found, dict) else vars(found))['open']('FILE').read()",
        NO_FILE,
        touches=True,
    ),
    "builtins replaced": Attack("__builtins__ = {}\nans = len([1])", ("= 1", "raised NameError")),
    "code in sympify": Attack(
        "import sympy\nans = sympy.sympify(\"__import__('os').system('touch FOLDER/new')\")", NO_SHELL, touches=True
    ),
    "code in eval": Attack("ans = eval(\"__import__('os').system('touch FOLDER/new')\")", NO_SHELL, touches=True),
    "code in a pickle": Attack(
        "import pickle\nans = pickle.loads(b\"cos\\nsystem\\n(S'touch FOLDER/new'\\ntR.\")",
        (*NO_SHELL, *NO_MODULE),
        touches=True,
    ),
    "code object of its own": Attack(
        "def f(): pass\nf.__code__ = f.__code__.replace(co_code=bytes(100))\nans = f()",
        (*CRASHED, "not_a_number", "raised SystemError", *TIME),
    ),
    "a null pointer": Attack("import ctypes\nctypes.string_at(0)", (*CRASHED, *NO_MODULE)),
    "the frames of the caller": Attack(
        "import sys\nframe = sys._getframe()\nseen = []\nwhile frame:\n    seen += map(type, frame.f_locals.values())\n"
        "    frame = frame.f_back\nans = len([kind for kind in seen if kind.__name__ == 'Server']) > 0",
        ("= True",),  # it sees a copy of the server, and gains nothing by it
    ),
    "the reply of the caller": Attack(
        "import sys\nframe = sys._getframe(1)\nframe.f_locals['reply'](1)",
        (*CRASHED, "raised AttributeError"),
    ),
    "objects of the caller": Attack("import gc\nans = len(gc.get_objects()) < 0", ("= False",)),
    "the environment": Attack(f"{OS}ans = os.environ.get('VARIABLE', 'none')", ("= none",), touches=True),
    "the environment of the parent": Attack(f"{OS}ans = open(f'/proc/{{os.getppid()}}/environ').read()", NO_FILE),
    # Forged and broken results.
    "a forged result": Attack(f"{OS}os.write(3, b'v99')\nans = 42", CRASHED),
    "a forged result to every descriptor": Attack(
        f"{OS}for fd in range(2048):\n    try: os.write(fd, b'\\x00\\x00\\x00\\x03v99')\n    except OSError: pass\n"
        "ans = 42",
        CRASHED,
    ),
    "a forged frame to every descriptor but its own": Attack(
        f"{OS}for fd in range(4, 2048):\n    try: os.write(fd, b'\\x00\\x00\\x00\\x03v99')\n    except OSError: pass\n"
        "ans = 42",
        ("= 42",),
    ),
    "a forged result and an end": Attack(f"{OS}os.write(3, b'v99')\nos._exit(0)", CRASHED),
    "a forged result with a guessed token": Attack(f"{OS}os.write(3, bytes(16) + b'v99')\nos._exit(0)", CRASHED),
    "a megabyte of forged results": Attack(f"{OS}while True: os.write(3, b'v99' * 1000)", CRASHED),
    "a forged line": Attack('print(\'{"value": "99", "reason": null}\')\nans = 42', ("= 42",)),
    "a result with a byte that is no text": Attack(
        f"{OS}write = os.write\nos.write = lambda fd, data: write(fd, data + b'\\xff')\nans = 42", CRASHED
    ),
    "closing every descriptor": Attack(f"{OS}os.closerange(0, 2048)\nans = 42", CRASHED),
    "closing every descriptor and going on": Attack(f"{OS}os.closerange(0, 2048)\nwhile True: pass", CRASHED),
    "closing every descriptor but its own": Attack(f"{OS}os.closerange(4, 2048)\nans = 42", ("= 42",)),
    "reading from every descriptor": Attack(
        f"{OS}read = b''\nfor fd in range(2048):\n    try: read += os.read(fd, 10)\n    except OSError: pass\n"
        "ans = len(read)",
        ("= 0",),
    ),
    "an end": Attack(f"{OS}os._exit(0)", CRASHED),
    "an end at once": Attack("raise SystemExit", ("no_answer",)),
    "an end with a code": Attack("raise SystemExit(3)", ("raised SystemExit",)),
    "an end with a hostile code": Attack(
        "class A:\n    def __eq__(self, other): raise MemoryError\nans = 1\nraise SystemExit(A())",
        ("raised SystemExit", *MEMORY),
    ),
    "an abort": Attack(f"{OS}os.abort()", CRASHED),
    "something to do at the end": Attack(
        "import atexit\natexit.register(lambda: open('FILE', 'w').write('gone'))\nans = 42", ("= 42",), touches=True
    ),
    "a hook for uncaught exceptions": Attack(
        "import sys\nsys.excepthook = lambda *_: open('FILE', 'w').write('gone')\n1 / 0",
        ("raised ZeroDivisionError",),
        touches=True,
    ),
    "a hook for every call": Attack(
        "import sys\nsys.setprofile(lambda *_: 1 / 0)\nans = 42", ("raised ZeroDivisionError", *CRASHED, "= 42")
    ),
    "an exception of its own": Attack(
        "class ZeroDivisionError(Exception): pass\nraise ZeroDivisionError", ("raised Exception",)
    ),
    "an exception that cannot be read": Attack(
        "class A(Exception):\n    def __str__(self): raise self\n    __repr__ = __str__\nraise A", ("raised Exception",)
    ),
    "an exception whose class lies": Attack(
        "class M(type):\n    def __hash__(self): return 1 // 0\nclass A(Exception, metaclass=M): pass\nraise A",
        (*CRASHED, "raised Exception"),
    ),
    "tampering with math": Attack("import math\nmath.sqrt = lambda x: 99\nans = math.sqrt(4)", ("= 99",)),
    "tampering with builtins": Attack(
        "import builtins\nbuiltins.isinstance = builtins.len = builtins.str = None\nans = 42",
        (*CRASHED, "= 42", "raised TypeError"),
    ),
    "deleting builtins": Attack(
        "import builtins\nfor name in list(vars(builtins)):\n    delattr(builtins, name)\nans = 42",
        (*CRASHED, "= 42", "raised NameError", "raised Exception"),
    ),
    "emptying sys.modules": Attack("import sys\nsys.modules.clear()\nans = 42", (*CRASHED, "= 42")),
    "tampering with os.write": Attack(
        f"{OS}write = os.write\nos.write = lambda fd, data: write(fd, data[:-2] + b'99')\nans = 42", ("= 99", *CRASHED)
    ),
    "throwing away sys.stdout": Attack(
        "import sys\nsys.stdout = None\ndel sys.stderr\nprint(1)\nans = 42", ("= 42", "raised RuntimeError")
    ),
    "the number of digits": Attack(
        "import sys\nsys.set_int_max_str_digits(640)\nans = 10 ** 700", (*CRASHED, "raised ValueError")
    ),
    "a recursion limit of one": Attack(
        "import sys\ntry: sys.setrecursionlimit(1)\nexcept RecursionError: pass\nans = 42",
        (*CRASHED, "= 42", "raised RecursionError"),
    ),
    # Hostile answers.
    "an answer with a hostile __str__": Attack(
        "class A:\n    def __str__(self): return '42'\n    __repr__ = __format__ = __str__\nans = A()",
        ("not_a_number",),
    ),
    "an answer with a hostile __float__ and __index__": Attack(
        "class A:\n    def __float__(self): return 42.0\n    def __index__(self): return 42\nans = A()",
        ("not_a_number",),
    ),
    "an answer whose __class__ lies": Attack(
        "class A:\n    __class__ = property(lambda self: int)\nans = A()", ("not_a_number", "raised TypeError")
    ),
    "an answer whose __class__ never ends": Attack(
        "def f(self):\n    while True: pass\nclass A:\n    __class__ = property(f)\nans = A()", (*TIME, "not_a_number")
    ),
    "an answer that is an int and says another": Attack(
        "class A(int):\n    def __repr__(self): return '99'\n    __str__ = bit_length = __repr__\nans = A(42)",
        ("= 42",),
    ),
    "an answer that is a float and says another": Attack(
        "class A(float):\n    def __repr__(self): return '99'\n    __float__ = __repr__\nans = A(42)", ("= 42.0",)
    ),
    "an answer that is a text and says another": Attack(
        "class A(str):\n    def __str__(self): return '99'\n    strip = __len__ = __str__\nans = A('42')", ("= 42",)
    ),
    "an answer that is a fraction and says another": Attack(
        "from fractions import Fraction\nclass A(Fraction):\n    def __str__(self): return '99'\nans = A(1, 2)",
        ("= 1/2",),
    ),
    "an answer with a hostile __eq__": Attack(
        "import sympy\nclass A:\n    def __eq__(self, other):\n        while True: pass\nans = A()",
        ("not_a_number", *TIME),
    ),
    "an answer that is a list that holds itself": Attack("ans = []\nans.append(ans)", ("not_a_number",)),
    "an answer that is a function": Attack("def ans(): return 42", ("not_a_number",)),
    "an answer that is not finite": Attack("ans = float('inf') - float('inf')", ("not_a_number",)),
    "an answer that is complex": Attack("ans = (-1) ** 0.5", ("not_a_number",)),
    "an answer of control characters": Attack("ans = '\\x1b[2J\\x00\\r\\n4'", ("= \x1b[2J\x00\r\n4",)),
    "an answer of lone surrogates": Attack("ans = '\\udfff\\ud800'", ("= \udfff\ud800",)),
    "a printed lone surrogate": Attack("print('\\ud800')", ("= \\ud800",)),
    "an answer in another script": Attack("ans = '４２ और ٤٢'", ("= ４２ और ٤٢",)),
    # Hostile text.
    "empty text": Attack("", ("no_answer",)),
    "blank text": Attack(" \n\t\n\f\n", ("no_answer", "syntax")),
    "a NUL": Attack("ans = 42\0", ("syntax",)),
    "a lone surrogate": Attack("ans = '\ud800'", ("syntax",)),
    "control characters": Attack("\x01\x02\x1b[2J\x7f", ("syntax",)),
    "numbers in another script": Attack("ans = ４２", ("syntax",)),
    "names in another script": Attack("число = 42\nans = число", ("= 42",)),
    "an encoding declared": Attack("# -*- coding: utf-7 -*-\nans = 42", ("= 42", "syntax")),
    "megabytes of text": Attack("ans = 42 #" + "x" * 5_000_000, ("too_long",)),
    "just too long": Attack("ans = 42 #" + "x" * 20_000, ("too_long",)),
    "deep parentheses": Attack("ans = " + "(" * 5_000 + "42" + ")" * 5_000, ("syntax",)),
    "a deep tree": Attack("ans = " + "-" * 15_000 + "42", ("syntax",)),
    "a deep attribute": Attack("ans = a" + ".a" * 9_000, ("syntax", "raised NameError")),
    "a format that is too wide": Attack("ans = f'{1:>{10 ** 11}}'", (*MEMORY, "raised ValueError")),
    "dunder names": Attack("__name__ = __doc__ = __file__ = __loader__ = 42\nans = __name__", ("= 42",)),
    "imports of os, ctypes and socket alone": Attack("import os, ctypes\nans = 42", ("= 42", *NO_MODULE)),
}
