"""The journal of a run: what it tells, when the store is away, and what it keeps to itself; and logs in JSON."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retort import logs
from retort.instances import instances, read
from retort.journal import LAST_S, MOST, ROOT, Journal, reason
from retort.logs import event
from retort.store import Store, open_store
from retort.store.artifacts import Address, Artifact, Writer
from retort.store.local import LocalStore

logger = logging.getLogger("retort.tests")


@pytest.fixture(autouse=True)
def levels(caplog: pytest.LogCaptureFixture) -> None:
    """As jobs set them."""
    caplog.set_level(logging.INFO)


def events(store: Store) -> list[dict[str, str]]:
    return [each for part in read(store, store.keys(ROOT)).values() for each in part["events"]]


def told(store: Store) -> list[tuple[str, ...]]:
    """Events without their times."""
    return [tuple(value for key, value in each.items() if key != "driver_time") for each in events(store)]


def until(is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make(store: Store, name: str) -> Artifact:
    writer = Writer(store, Address("corpus", 1, {"name": name}, {}), name)
    return writer.commit([writer.put("rows", b"1")], {})


def test_a_journal_tells_what_was_made_and_kept_and_how_it_ended(store_uri: str) -> None:
    store = open_store(store_uri)
    with Journal(store, "mine", "curate") as journal:
        until(lambda: len(events(store)) == 1)
        made = make(store, "chains")
        for _ in range(2):  # a recipe is prepared more than once
            logger.info("kept", extra=event("kept", "corpus", "chains", made.prefix, made.manifest["attempt"]))
        logger.info("first words")
        logger.info("last words")
        logger.warning("the recording lacks %d chains", 3)
        logging.getLogger("botocore").warning("not ours")
        journal.ray_job = "01000000"
    assert set(told(store)) == {
        ("started", "curate mine"),
        ("stage started", "corpus", "chains", made.prefix, made.manifest["attempt"]),
        ("kept", "corpus", "chains", made.prefix, made.manifest["attempt"]),
        ("said", "last words"),
        ("warning", "the recording lacks 3 chains"),
        ("ended",),
    }
    times = [each["driver_time"] for each in events(store)]
    assert times == sorted(times)
    *_, last = read(store, store.keys(ROOT)).values()
    assert (last["run"], last["pid"], last["ray_job"], last["dropped"]) == ("mine", os.getpid(), "01000000", 0)
    assert len(store.keys(ROOT)) < len(times), "what comes soon after another goes into one object"


def test_two_drivers_at_once_keep_a_journal_each(store: Store) -> None:
    with Journal(store, "mine", "curate"), Journal(store, "mine", "train"):
        pass
    found, number = instances(store, 10)
    assert number == 2
    assert {(each.job, each.state) for each in found} == {("curate", "ended"), ("train", "ended")}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("teacher.a: no such model\nteacher.b: nor this"), "teacher.b: nor this"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_failure_is_told_by_the_last_line_of_its_reason(store: Store, error: BaseException, said: str) -> None:
    with pytest.raises(type(error)), Journal(store, "mine", "train"):
        raise error
    assert told(store)[-1] == ("failed", said) == ("failed", reason(error))
    (found,), _ = instances(store, 1)
    assert (found.state, found.reason) == ("failed", said)


def test_ctrl_c_is_no_failure(store: Store) -> None:
    for stop in (KeyboardInterrupt(), SystemExit(15)):
        with pytest.raises(type(stop)), Journal(store, "mine", "train"):
            raise stop
        assert told(store)[-1] == ("interrupted",)


def test_a_store_that_is_away_neither_fails_a_run_nor_holds_it_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = tmp_path / "store"
    away.write_text("no folder")
    store = LocalStore(str(away))
    began = time.monotonic()
    with Journal(store, "mine", "train"):
        until(lambda: "tried again" in caplog.text)
        for number in range(2 * MOST):
            logger.warning("warning %d", number)
        assert time.monotonic() - began < LAST_S
        away.unlink()  # it is there again
    assert time.monotonic() - began < 2 * LAST_S
    found = told(store)
    assert (found[0], found[-1]) == (("started", "train mine"), ("ended",))
    assert MOST / 2 < len(found) <= MOST + 2
    *_, last = read(store, store.keys(ROOT)).values()
    assert len(found) + last["dropped"] == 2 * MOST + 2, "what is not there is counted"


def test_a_store_that_stays_away_is_given_up_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = tmp_path / "store"
    away.write_text("no folder")
    began = time.monotonic()
    with Journal(LocalStore(str(away)), "mine", "train"):
        pass
    assert time.monotonic() - began < LAST_S
    assert "did not reach the store" in caplog.text
    assert away.read_text() == "no folder"


def test_values_of_secret_variables_stay_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-0123456789")
    monkeypatch.setenv("SHORT_TOKEN", "true")

    def fail() -> None:
        logger.warning("401 for key sk-0123456789, which is true")
        raise ValueError("refused: sk-0123456789")

    with pytest.raises(ValueError, match="sk-0123456789"), Journal(store, "mine", "train"):
        fail()
    assert ("warning", "401 for key ⟨MY_API_KEY⟩, which is true") in told(store)
    assert told(store)[-1] == ("failed", "refused: ⟨MY_API_KEY⟩")
    assert not any(b"sk-0123456789" in store.get(key) for key in store.keys(ROOT))


def test_long_texts_are_cut(store: Store) -> None:
    with Journal(store, "mine", "train"):
        logger.warning("x" * 10_000)
    assert {len(each["text"]) for each in events(store) if each["event"] == "warning"} == {2000}


SPEAK = """\
import logging
from dataclasses import replace
from retort import logs
log = replace(logs.asked_for(), run="mine")
logs.configure(log)
logger = logging.getLogger("retort.speak")
logger.info("two\\nlines")
logger.info("making corpus", extra=logs.event("stage started", "corpus", "chains", "artifacts/corpus/3fa94c/"))
logger.warning("key %s", "sk-0123456789")
assert logs.current() == replace(log, stage="corpus", of="chains", artifact="artifacts/corpus/3fa94c/")
logger.info("kept corpus chains", extra=logs.event("kept", "corpus", "chains", "artifacts/corpus/3fa94c/"))
logger.debug("not this")
assert logs.current() == log
logger.info("index", extra=logs.event("stage started", "run", "", "artifacts/run/0d/"))
assert logs.current() == log
logger.info("training", extra=logs.event("stage started", "checkpoint", "cot", "artifacts/checkpoint/1a/"))
logs.configure(replace(log, run="other"))  # an actor's next trial
assert logs.current() == replace(log, run="other")
"""


def spoken(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_logs_are_json_where_the_environment_asks_for_it_and_text_elsewhere() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in spoken(RETORT_LOG="json", A_KEY="sk-0123456789")]
    keys = ("level", "run", "stage", "of", "artifact", "message")
    assert [tuple(line[key] for key in keys) for line in lines] == [
        ("info", "mine", None, None, None, "two\nlines"),
        ("info", "mine", "corpus", "chains", "artifacts/corpus/3fa94c/", "making corpus"),
        ("warning", "mine", "corpus", "chains", "artifacts/corpus/3fa94c/", "key ⟨A_KEY⟩"),
        ("info", "mine", "corpus", "chains", "artifacts/corpus/3fa94c/", "kept corpus chains"),
        ("info", "mine", "run", None, "artifacts/run/0d/", "index"),
        ("info", "mine", "checkpoint", "cot", "artifacts/checkpoint/1a/", "training"),
    ]
    assert all(line["time"].endswith("Z") and line["logger"] == "retort.speak" for line in lines)
    first, second, third = spoken(A_KEY="sk-0123456789")
    assert (first[9:], second, third[9:]) == ("two", "lines", "key ⟨A_KEY⟩"), "events are not told in text"
    assert spoken(RETORT_LOG="yaml")[-1].endswith("RETORT_LOG='yaml' in the environment: expected text or json")


ACTOR = """\
import logging
from retort.logs import Log
from retort.sampling.actor import quieten
quieten(Log("mine", "distill", True, "sampling", "tiny", "artifacts/sampling/3fa94c/"))
print("an engine's own words")
logging.getLogger("retort.speak").warning("slow")
"""


def test_an_actor_writes_what_its_driver_has_under_way() -> None:
    done = subprocess.run([sys.executable, "-c", ACTOR], capture_output=True, text=True, check=True)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["run"], line["message"], done.stdout) == ("mine", "slow", "")
    assert (line["stage"], line["of"], line["artifact"]) == ("sampling", "tiny", "artifacts/sampling/3fa94c/")


def test_why_a_job_ends_is_a_line_of_json_too() -> None:
    command = [sys.executable, "jobs/status.py", "/nowhere"]
    root, environment = Path(__file__).parent.parent, {**os.environ, "RETORT_LOG": "json"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, line["level"], line["job"]) == (2, "error", "status")
    assert line["message"].startswith("store '/nowhere': no such folder")


def test_times_are_in_utc_with_their_milliseconds() -> None:
    assert logs.utc(0.1205) == "1970-01-01T00:00:00.120Z"
