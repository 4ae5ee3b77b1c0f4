"""How processes log: lines of text, or with `RETORT_LOG=json` in the driver's environment an object a line.

{"time": "2026-03-01T12:00:05.120Z", "level": "info", "run": "mine", "job": "distill", "stage": "checkpoint",
 "of": "cot", "artifact": "artifacts/checkpoint/3fa94c…/", "message": "kept checkpoint cot", "logger": "retort.run",
 "pid": 4711}

`stage`, `of` and `artifact` are null in all lines but events, which `logger.info(…, extra=event(…))` tells of: those go
to the journal (`journal.py`) and into JSON, and are left out of text, which says the same in lines of its own.
"""

import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

VARIABLE = "RETORT_LOG"
_SECRET = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)(?!.*(?:FILE|PATH|DIR)$)")
"""In names of variables; those of files are shown."""
_LEAST_SECRET = 8
"""Shorter values of such variables (0, true, none) are no secrets, and occur in any text."""


@dataclass(frozen=True)
class Log:
    """What all processes of a run log alike. Picklable: actors and workers are given that of their driver."""

    run: str = ""
    job: str = ""
    is_json: bool = False


class _Current:
    """Of this process."""

    log: Log | None = None
    handler: logging.Handler | None = None


def current() -> Log:
    """How this process was told to log, for the processes that it starts."""
    return _Current.log or asked_for()


def asked_for() -> Log:
    """How the environment and the command line ask this process to log; of no run yet.

    Raises:
        ValueError: for a format that there is not.
    """
    wanted = os.environ.get(VARIABLE, "text")
    if wanted not in ("text", "json"):
        raise ValueError(f"{VARIABLE}={wanted!r} in the environment: expected text or json")
    return Log(job=Path(sys.argv[0]).stem, is_json=wanted == "json")


def configure(log: Log, text: str = "%(asctime)s %(message)s", replaces: bool = False) -> None:
    """Log to stderr from now on, as told here and no longer as told before; `text` is the format of lines of text.

    Where somebody else has given the root logger handlers, it is left to them, or `replaces` them.
    """
    if _Current.handler is not None:
        logging.getLogger().removeHandler(_Current.handler)
    _Current.log, _Current.handler = log, handler(log, text, sys.stderr)
    logging.basicConfig(level=logging.INFO, handlers=[_Current.handler], force=replaces)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it says where it found credentials, each time


def refuse(told: object) -> None:
    """Tell on stderr why this process ends: a line of text, or an error among lines of JSON."""
    if _Current.log is not None and _Current.log.is_json:
        logging.getLogger(__name__).error("%s", told)
    else:
        sys.stderr.write(f"{told}\n")


def handler(log: Log, text: str, stream: TextIO) -> logging.Handler:
    """A handler that writes as a process was told to."""
    made = logging.StreamHandler(stream)
    made.setFormatter(_Json(log) if log.is_json else logging.Formatter(text, "%H:%M:%S"))
    if not log.is_json:
        made.addFilter(lambda record: not hasattr(record, "event"))
    return made


def event(name: str, stage: str, of: str = "", artifact: str = "") -> dict[str, str]:
    """The `extra` of a record that tells of an event: what happened to which stage, of what, at which artifact."""
    return {"event": name, "stage": stage, "of": of, "artifact": artifact}


def utc(at_s: float) -> str:
    """Seconds since 1970 as a date and time: 2026-03-01T12:00:05.120Z."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def without_secrets(text: str) -> str:
    """A text in which no value of this process's environment stands whose variable is named as secrets are."""
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET.search(name.upper()) and value in text:
            text = text.replace(value, f"⟨{name}⟩")
    return text


class _Json(logging.Formatter):
    """Records as JSON, each on one line."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def format(self, record: logging.LogRecord) -> str:
        """A record as one line."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "run": self._log.run,
            "job": self._log.job,
            **{name: getattr(record, name, None) or None for name in ("stage", "of", "artifact")},
            "message": without_secrets(message),
            "logger": record.name,
            "pid": record.process,
        }
        return json.dumps(line, ensure_ascii=False)
