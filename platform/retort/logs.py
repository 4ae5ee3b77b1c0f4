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
    stage: str = ""
    of: str = ""
    artifact: str = ""


def current() -> Log:
    """How this process was told to log, for the processes that it starts."""
    own = _own()
    return asked_for() if own is None else own.log


def _own() -> "Handler | None":
    """The handler of this process; None where it was told nothing, or somebody else took its root logger."""
    for logger in (logging.getLogger("retort"), logging.getLogger()):
        for each in logger.handlers:
            if isinstance(each, Handler):
                return each
    return None


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
    if (own := _own()) is not None:
        logging.getLogger().removeHandler(own)
    logging.basicConfig(level=logging.INFO, handlers=[Handler(log, text, sys.stderr)], force=replaces)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it says where it found credentials, each time


def refuse(told: object) -> None:
    """Tell on stderr why this process ends: a line of text, or an error among lines of JSON."""
    own = _own()
    if own is not None and own.log.is_json:
        logging.getLogger(__name__).error("%s", told)
    else:
        sys.stderr.write(f"{without_secrets(str(told))}\n")


class Handler(logging.StreamHandler[TextIO]):
    """Writes records as a process was told to; by the events among them, `log` says what is under way."""

    def __init__(self, log: Log, text: str, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(logging.Formatter(text, "%H:%M:%S"))
        self.log = log
        self._under_way: dict[str, tuple[str, str]] = {}
        """Stage, and what of, by artifact."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; events only into JSON."""
        if hasattr(record, "event"):
            self._follow(record)
        if self.log.is_json or not hasattr(record, "event"):
            super().emit(record)

    def _follow(self, record: logging.LogRecord) -> None:
        name, artifact, stage, of = (getattr(record, key, "") for key in ("event", "artifact", "stage", "of"))
        if name == "stage started" and stage != "run":  # an index is made at once, and no run keeps it
            self._under_way[artifact] = (stage, of)
        elif name == "kept":
            self._under_way.pop(artifact, None)
        stage = next((stage for stage, _ in reversed(self._under_way.values())), "")
        together = {key: of for key, (each, of) in self._under_way.items() if each == stage}
        if len(together) == 1:
            (artifact, of), *_ = together.items()
        else:
            makers = {of.partition("/")[0] for of in together.values()}
            artifact, of = "", makers.pop() if len(makers) == 1 else ""
        self.log = replace(self.log, stage=stage, of=of, artifact=artifact)

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line, or as several of text where it has a traceback."""
        if not self.log.is_json:
            return without_secrets(super().format(record))
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{logging.Formatter().formatException(record.exc_info)}"
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "run": self.log.run,
            "job": self.log.job,
            **about(record),
            "message": without_secrets(message),
            "logger": record.name,
            "pid": record.process,
        }
        return json.dumps(line, ensure_ascii=False)


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
