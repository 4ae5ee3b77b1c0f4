"""How processes log: lines of text, or with `RETORT_LOG=json` in the driver's environment an object a line.

{"time": "2026-03-01T12:00:05.120Z", "level": "info", "run": "mine", "job": "distill", "stage": "checkpoint",
 "of": "cot", "artifact": "artifacts/checkpoint/3fa94c…/", "message": "kept checkpoint cot", "logger": "retort.run",
 "pid": 4711}

`stage`, `of` and `artifact` are those of what is under way in the driver: of several artifacts that one stage makes
together, `of` is what their names begin with, and `artifact` null. Events, which `logger.info(…, extra=event(…))` tells
of, have their own; they go to the journal (`journal.py`) and into JSON, and are left out of text, which says the same.
"""

import json
import logging
import os
import re
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TextIO

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
    stage: str = ""
    of: str = ""
    artifact: str = ""


class _Current:
    """Of this process."""

    log: Log | None = None
    handler: logging.Handler | None = None
    under_way: ClassVar[dict[str, tuple[str, str]]] = {}
    """Stage, and what of, by artifact."""


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
        sys.stderr.write(f"{without_secrets(str(told))}\n")


def handler(log: Log, text: str, stream: TextIO) -> logging.Handler:
    """A handler that writes as a process was told to."""
    made = logging.StreamHandler(stream)
    made.setFormatter(_Json(log) if log.is_json else _Text(text, "%H:%M:%S"))
    made.addFilter(_follow)
    if not log.is_json:
        made.addFilter(lambda record: not hasattr(record, "event"))
    return made


def _follow(record: logging.LogRecord) -> bool:
    """Keep in mind what is under way, by the events."""
    name, artifact = getattr(record, "event", ""), getattr(record, "artifact", "")
    if name == "stage started":
        _Current.under_way[artifact] = (getattr(record, "stage", ""), getattr(record, "of", ""))
    elif name == "kept":
        _Current.under_way.pop(artifact, None)
    else:
        return True
    stage = next((stage for stage, _ in reversed(_Current.under_way.values())), "")
    together = {key: of for key, (each, of) in _Current.under_way.items() if each == stage}
    if len(together) == 1:
        (artifact, of), *_ = together.items()
    else:
        makers = {of.partition("/")[0] for of in together.values()}
        artifact, of = "", makers.pop() if len(makers) == 1 else ""
    _Current.log = replace(current(), stage=stage, of=of, artifact=artifact)
    return True


def event(name: str, stage: str, of: str = "", artifact: str = "", attempt: str = "") -> dict[str, str]:
    """The `extra` of a record that tells of an event: what happened to which stage, of what, at which artifact, and to
    which attempt at that.
    """
    return {"event": name, "stage": stage, "of": of, "artifact": artifact, "attempt": attempt}


def utc(at_s: float) -> str:
    """Seconds since 1970 as a date and time: 2026-03-01T12:00:05.120Z."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def without_secrets(text: str) -> str:
    """A text in which no value of this process's environment stands whose variable is named as secrets are."""
    for name, value in sorted(os.environ.items(), key=lambda variable: len(variable[1]), reverse=True):
        if len(value) >= _LEAST_SECRET and _SECRET.search(name.upper()) and value in text:
            text = text.replace(value, f"⟨{name}⟩")
    return text


def about(record: logging.LogRecord) -> dict[str, str | None]:
    """`stage`, `of` and `artifact` of a record: its own where it is an event, else what is under way."""
    source = record if hasattr(record, "event") else current()
    return {name: getattr(source, name, None) or None for name in ("stage", "of", "artifact")}


class _Text(logging.Formatter):
    """Records as text."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line, or as several where it has a traceback."""
        return without_secrets(super().format(record))


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
            **about(record),
            "message": without_secrets(message),
            "logger": record.name,
            "pid": record.process,
        }
        return json.dumps(line, ensure_ascii=False)
