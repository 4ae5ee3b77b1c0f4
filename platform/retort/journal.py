"""The journal of a run: what its driver did and when, in the store, so that it can be read when the driver is gone.

    journal/20260301T120000.120Z-4711-3fa94c/00001.json

A run of a job is an instance of its own, each object of which says whose it is and holds the events since the one
before, once written and never changed:

{"format": 1, "run": "mine", "job": "distill", "hostname": "node-1", "pid": 4711, "host": …, "started": …,
 "submission": "raysubmit_…", "ray_job": "01000000", "machine_s": {"teacher (8 CPU, 1 GPU)": 187.5}, "events": [
  {"driver_time": "2026-03-01T12:00:00.120Z", "event": "started", "text": "distill mine"},
  {"driver_time": "2026-03-01T12:03:07.002Z", "event": "kept", "stage": "checkpoint", "of": "cot",
   "artifact": "artifacts/checkpoint/3fa94c…/"}, …]}

Events are `started`, `stage started`, `kept` (a stage's artifact, made or found), `said` (the last line of the log),
`warning`, `failed`, `interrupted` and `ended`. Times are by the clock of the driver, which may be wrong. One that is
killed leaves no end: whether it lives is for signs of life to say (`store/claims.py`), which have the same `host`,
`pid` and `started`. The journal never fails a run nor holds it up: what cannot be written is warned of, tried again,
and lost in the end. gc leaves journals alone.
"""

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from retort.logs import about, utc, without_secrets
from retort.store import Store
from retort.store.claims import this_process

logger = logging.getLogger(__name__)

FORMAT = 1
ROOT = "journal/"
SOON_S = 2.0
"""From a stage's end to its being written, so that stages that are found together go into one object."""
LATER_S = 30.0
"""From a warning to its being written."""
SAID_S = 300.0
"""Between two objects that tell of nothing but the last line of the log."""
LAST_S = 10.0
"""How long the end of a run waits for its journal."""
MOST = 500
"""Events that wait for a store that is away; of more the oldest warnings are dropped, and counted."""
MOST_TEXT = 2000

Event = dict[str, str]


class Journal(logging.Handler):
    """Writes the journal of one run while it lasts: what loggers of retort tell of, and how it ended."""

    def __init__(self, store: Store, run: str, job: str) -> None:
        super().__init__(logging.INFO)
        began = utc(time.time()).replace("-", "").replace(":", "")  # names sort by time
        self.id = f"{began}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ray_job = ""
        """Ray's id of this driver, once it is known."""
        self.machine_s: dict[str, float] = {}
        """Seconds that machines of its cluster were there so far, by type and what each offers; others add them up."""
        self._store = store
        self._head = {"format": FORMAT, "run": run, "job": job, **this_process(), "submission": _submission()}
        self._events: list[Event] = []
        self._said: Event | None = None
        self._seen: set[tuple[str, ...]] = set()
        self._number = 0
        self._dropped = 0
        """Events that found no room while the store was away."""
        self._due_s = self._said_due_s = time.monotonic()
        self._changed = threading.Condition(self.lock)
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def __enter__(self) -> Self:
        self._note("started", {"text": f"{self._head['job']} {self._head['run']}"})
        self._thread.start()
        logging.getLogger("retort").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("retort").removeHandler(self)
        if isinstance(error, KeyboardInterrupt | SystemExit):  # Ray makes the latter of SIGTERM: `ray job stop`
            self._note("interrupted", {})
        elif error is not None:
            self._note("failed", {"text": reason(error)})
        else:
            self._note("ended", {})
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(LAST_S)
        if self._thread.is_alive():
            logger.warning("the end of the journal of this run did not reach the store within %.0f s", LAST_S)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record; at once, whatever the store does."""
        if record.name == __name__:
            return
        name, within_s = getattr(record, "event", ""), SOON_S
        if not name:
            name, within_s = ("warning", LATER_S) if record.levelno >= logging.WARNING else ("said", SAID_S)
        told = {key: value or "" for key, value in about(record).items()}
        told["attempt"] = getattr(record, "attempt", "")
        try:
            told["text"] = "" if hasattr(record, "event") else record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit their line: it is said, and the run goes on
            self.handleError(record)
            return
        self._note(name, told, within_s, record.created)

    def _note(self, name: str, told: Mapping[str, str], within_s: float = 0.0, at_s: float | None = None) -> None:
        """Have an event written within a time."""
        made: Event = {"driver_time": utc(at_s or time.time()), "event": name}
        made |= {key: without_secrets(value)[:MOST_TEXT] for key, value in told.items() if value}
        what = name, *(made.get(key, "") for key in ("stage", "of", "artifact", "attempt"))
        with self._changed:
            if name == "said":
                self._said = made
                return
            if name in ("kept", "stage started"):
                if what in self._seen:  # a recipe is prepared more than once
                    return
                self._seen.add(what)
            if not self._events or time.monotonic() + within_s < self._due_s:
                self._due_s = time.monotonic() + within_s
                self._changed.notify()
            self._events.append(made)
            if len(self._events) > MOST:
                oldest = next((each for each in self._events if each["event"] == "warning"), self._events[0])
                self._events.remove(oldest)
                self._dropped += 1

    def _run(self) -> None:
        """Write what is due, until all is written and the run over."""
        while True:
            with self._changed:
                while not self._is_over and (pause_s := self._pause_s()) > 0:
                    self._changed.wait(pause_s)
                events, self._events = self._events, []
                if self._said is not None:
                    events, self._said = sorted([*events, self._said], key=lambda each: each["driver_time"]), None
                self._said_due_s = time.monotonic() + SAID_S
                is_last = self._is_over
            if (events and not self._write(events)) or is_last:
                return

    def _pause_s(self) -> float:
        """Until something is due."""
        due = [self._due_s] if self._events else []
        due += [self._said_due_s] if self._said is not None else []
        return min(due, default=time.monotonic() + SAID_S) - time.monotonic()

    def _write(self, events: list[Event]) -> bool:
        """Put an object, as often as it takes; False where the run ended before it was there."""
        self._number += 1
        key = f"{ROOT}{self.id}/{self._number:05d}.json"
        told = {**self._head, "ray_job": self.ray_job, "dropped": self._dropped, "events": events}
        told["machine_s"] = {kind: round(seconds, 1) for kind, seconds in dict(self.machine_s).items()}
        data = json.dumps(told, ensure_ascii=False).encode()
        while True:
            try:
                # What is there already is this: an attempt that seemed to fail and did not.
                self._store.put(key, data)
                return True
            except OSError as error:
                logger.warning("the journal of this run did not reach the store; it is tried again: %s", error)
            with self._changed:
                if self._is_over:
                    return False
                self._changed.wait_for(lambda: self._is_over, LATER_S)


def reason(error: BaseException) -> str:
    """Why a run failed, in a line: the last of what the exception says, with its kind where that tells something."""
    cause = getattr(error, "cause", None) or error  # Ray wraps what a task raises
    said = str(cause).strip().splitlines()[-1:] or [""]
    if type(cause) in (ValueError, OSError) and said[0]:
        return said[0]
    return f"{type(cause).__name__}: {said[0]}".removesuffix(": ")


def _submission() -> str:
    """Under which id this job was submitted to Ray; empty where it was started by hand."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    except ValueError:
        return ""
    return str(config.get("metadata", {}).get("job_submission_id", ""))
