"""The ledger of a sweep: one write-once object in the store for each trial that has ended.

    sweeps/demo-sweep/trials/3fa94c01b2d7.json
    {"id": "3fa94c01b2d7", "params": {"selection.num_chains": 4, …}, "state": "finished", "value": 0.41, …}

A trial's id is the digest of all that decides its result, so that an entry can be of no other trial: whoever starts a
sweep, with whatever space, finds those of its trials that have ended, and runs the others.
"""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from retort import evaluation, overlap, rollouts, run, selection, verification
from retort.config import Recipe
from retort.engines import models
from retort.selection import picks
from retort.store import Store, address
from retort.store.artifacts import Address
from retort.store.hashing import canonical_json, digest, digest_file
from retort.thoughts import cues, exemplars
from retort.training import trainer
from retort.training.config import MACHINERY

VERSION = 2
"""Of what identifies a trial."""
FORMAT = 1
"""Of an entry."""
READERS = 16
"""Entries that are read at a time."""
State = Literal["finished", "stopped"]
STAGES = (run, rollouts, verification, overlap, selection, trainer, evaluation)
"""Whose code decides what a trial scores."""


@dataclass(frozen=True)
class Row:
    """A trial that has ended. `run` is the prefix of its index, `value` the accuracy that it is compared by.

    One that was `stopped` early has neither, nor scores; `curve` holds pairs of step and dev loss.
    """

    id: str
    params: dict[str, Any]
    state: State
    run: str | None
    value: float | None
    scores: list[dict[str, Any]]
    step: int
    dev_loss: float | None
    curve: list[tuple[int, float]]
    seconds: float
    created_at_s: float
    thought: str | None = None
    """Whose accuracy `value` is: the first combiner of a trial's thoughts, or its first thought."""


def identity(trial: Recipe) -> str:
    """The id of a trial: a digest of its recipe without its name, its store and machines, of files, models, cues, code.

    The ids within a recipe, of its tasks, its corpus, its student, are part of it.
    """
    fields = trial.model_dump(mode="json", exclude={"name", "store", "sampling", "assumed", "sweep"})
    for student in fields["student"]:
        for name in MACHINERY:
            del student["training"][name]
    for teacher, of in zip(fields["teacher"], trial.teacher, strict=True):
        teacher["settings"] = of.settings.identity()
    for settings in ("engine", "hf"):
        of_engine = fields["evaluation"][settings]
        fields["evaluation"][settings] = {name: of_engine.get(name) for name in ("dtype", "quantization")}
    inputs = {
        "files": {task.id: [_file(str(file)) for file in task.files()] for task in trial.task},
        "bases": {
            each.id: models.identity(each.base, each.revision, each.init == "pretrained") for each in trial.student
        },
        "stages": [each.VERSION for each in STAGES],
        "cues": {name: cue for name, cue in vars(cues).items() if name.isupper()},
        "exemplars": exemplars.identity() if any(teacher.lesson.exemplars for teacher in trial.teacher) else None,
    }
    libraries = {*verification.LIBRARIES, *picks.LIBRARIES, *trainer.LIBRARIES, *evaluation.LIBRARIES}
    return digest(Address("trial", VERSION, fields, inputs, sorted(libraries)).describe())[:12]


@cache
def _file(path: str) -> str:
    return digest_file(Path(path))


@dataclass(frozen=True)
class Place:
    """Where a sweep keeps what it has, by the name of its recipe: entries, and who is running its trials."""

    name: str

    @property
    def prefix(self) -> str:
        return f"sweeps/{self.name}/"


def folder(name: str) -> str:
    """Where the entries of a sweep lie."""
    return f"{Place(name).prefix}trials/"


def put(store: Store, name: str, row: Row) -> bool:
    """Enter a trial; False where it was entered before, as which it stays."""
    entry = {"format": FORMAT, **asdict(row)}
    return store.put(f"{folder(name)}{row.id}.json", canonical_json(entry).encode())


def get(store: Store, name: str, trial_id: str) -> Row | None:
    """The entry of a trial, if it has ended.

    Raises:
        ValueError: it is of a newer release.
    """
    key = f"{folder(name)}{trial_id}.json"
    try:
        entry = json.loads(store.get(key))
    except FileNotFoundError:
        return None
    if (written := entry.pop("format", FORMAT)) != FORMAT:
        raise ValueError(f"{address(store, key)} has format {written}; expected {FORMAT}: upgrade retort")
    return Row(**entry | {"curve": [(step, loss) for step, loss in entry["curve"]]})


def rows(store: Store, name: str, ids: Collection[str] | None = None) -> dict[str, Row]:
    """Entries by id, all or those of some trials, in the order in which the trials ended."""
    there = [key.rsplit("/", 1)[1].removesuffix(".json") for key in store.keys(folder(name))]
    wanted = [each for each in there if ids is None or each in ids]
    with ThreadPoolExecutor(READERS) as pool:
        found = [row for row in pool.map(lambda each: get(store, name, each), wanted) if row is not None]
    return {row.id: row for row in sorted(found, key=lambda row: (row.created_at_s, row.id))}


def best(found: Mapping[str, Row]) -> Row | None:
    """The finished trial of the highest value; of equal ones the one of the smallest id, whichever ended first."""
    finished = sorted((row for row in found.values() if row.value is not None), key=lambda row: row.id)
    return max(finished, key=lambda row: row.value or 0, default=None)
