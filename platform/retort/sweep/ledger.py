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

from retort import evaluation, selection, verification
from retort.config import Recipe
from retort.engines import models
from retort.store import Store
from retort.store.artifacts import Address
from retort.store.hashing import canonical_json, digest, digest_file
from retort.training import trainer

VERSION = 1
READERS = 16
"""Entries that are read at a time."""
State = Literal["finished", "stopped"]


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


def identity(trial: Recipe) -> str:
    """The id of a trial: of its recipe without names, places and machines, of its files, models, stages, libraries."""
    fields = trial.model_dump(mode="json", exclude={"name", "store", "sampling", "assumed", "sweep"})
    for student in fields["student"]:
        for name in ("num_workers", "cpus_per_worker", "gpus_per_worker"):
            del student["training"][name]
    for teacher, of in zip(fields["teacher"], trial.teacher, strict=True):
        teacher["settings"] = of.settings.identity()
    for settings in ("engine", "hf"):
        fields["evaluation"][settings] = {"dtype": fields["evaluation"][settings]["dtype"]}
    inputs = {
        "files": {task.id: [_file(str(file)) for file in task.files()] for task in trial.task},
        "bases": {
            each.id: models.identity(each.base, each.revision, each.init == "pretrained") for each in trial.student
        },
        "stages": [verification.VERSION, selection.VERSION, trainer.VERSION, evaluation.VERSION],
    }
    libraries = {*verification.LIBRARIES, *trainer.LIBRARIES, *evaluation.LIBRARIES}
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
    return store.put(f"{folder(name)}{row.id}.json", canonical_json(asdict(row)).encode())


def get(store: Store, name: str, trial_id: str) -> Row | None:
    """The entry of a trial, if it has ended."""
    try:
        entry = json.loads(store.get(f"{folder(name)}{trial_id}.json"))
    except FileNotFoundError:
        return None
    return Row(**entry | {"curve": [(step, loss) for step, loss in entry["curve"]]})


def rows(store: Store, name: str, ids: Collection[str] | None = None) -> dict[str, Row]:
    """Entries by id, all or those of some trials, in the order in which the trials ended."""
    there = [key.rsplit("/", 1)[1].removesuffix(".json") for key in store.keys(folder(name))]
    wanted = [each for each in there if ids is None or each in ids]
    with ThreadPoolExecutor(READERS) as pool:
        found = [row for row in pool.map(lambda each: get(store, name, each), wanted) if row is not None]
    return {row.id: row for row in sorted(found, key=lambda row: (row.created_at_s, row.id))}


def best(found: Mapping[str, Row]) -> Row | None:
    """The finished trial of the highest value."""
    finished = [row for row in found.values() if row.value is not None]
    return max(finished, key=lambda row: row.value or 0, default=None)
