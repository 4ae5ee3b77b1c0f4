"""Progress is told from signs of life, and costs no more where there are many of them."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.counting import CountingStore
from retort.sampling import progress
from retort.sampling.progress import Progress
from retort.store import Store
from retort.store.claims import Session

ACTORS = 40


def test_a_thousand_actors_are_asked_no_more_often_a_second_than_a_hundred(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.05)
    monkeypatch.setattr(progress, "READS_PER_S", 4.0 * ACTORS)
    counting = CountingStore(store, str(tmp_path / "counters"))
    session = Session(counting)
    members = [session.join(None) for _ in range(ACTORS)]
    before = sum(counting.counts().values(), Counter())
    began = time.monotonic()
    with Progress(session, 10, "tiny"):
        threading.Event().wait(1.0)
    took_s = time.monotonic() - began
    read = sum(counting.counts().values(), Counter()) - before
    for member in members:
        member.close()
    # Once at the start, once at the end, and four times a second; every 0.05 s it would be 20 times.
    assert ACTORS < read["GET sessions"] <= ACTORS * (2 + 4 * took_s)
