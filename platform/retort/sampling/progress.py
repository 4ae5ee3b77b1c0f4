"""Progress: what the actors of a sampling session say of themselves, as a line in the log now and then."""

import logging
import threading
import time
from collections import Counter
from typing import Self

from retort.store.claims import Session

logger = logging.getLogger(__name__)
REPORT_EVERY_S = 5.0
READS_PER_S = 10.0
"""Signs of life that are read a second, at most: with a thousand actors there is a line every 100 s."""


class Progress:
    """Reports the chains of a session that have become durable, from the signs of life of its actors."""

    def __init__(self, session: Session, total: int, label: str) -> None:
        self._session, self._total, self._label = session, total, label
        self._seen: dict[str, dict[str, int]] = {}
        self._num_read = 0
        self._before = self._counts()
        self._first: tuple[float, int, int] | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        said = 0
        while not self._is_over.wait(max(REPORT_EVERY_S, self._num_read / READS_PER_S)):
            try:
                counts = self._counts()
            except OSError:  # a store that is away; who writes to it says so
                continue
            new = {name: value - self._before.get(name, 0) for name, value in counts.items()}
            done = new.get("sampled", 0) + new.get("lacking", 0) + new.get("withheld", 0)
            if done != said:
                said = done
                logger.info("sampling %s: %s", self._label, self._line(new, done))

    def _line(self, new: dict[str, int], done: int) -> str:
        now, tokens = time.monotonic(), new.get("output_tokens", 0)
        judged = new.get("judged", 0)
        share = f", {new.get('accepted', 0) / judged:.0%} accepted" if judged else ""
        if self._first is None:
            # The first chains also waited for the engine to start: rates are counted from them on.
            self._first = now, done, tokens
            return f"{done}/{self._total} chains{share}, {tokens} tokens"
        began, first_done, first_tokens = self._first
        seconds = max(now - began, 1e-9)
        rate = (done - first_done) / seconds
        left = f", {(self._total - done) / rate:.0f} s left" if rate and done < self._total else ""
        return f"{done}/{self._total} chains{share}, {(tokens - first_tokens) / seconds:.0f} tokens/s{left}"

    def _counts(self) -> dict[str, int]:
        members = self._session.members()
        self._num_read = len(members)
        for member in members:
            # Also of those that have left since.
            self._seen[f"{member['hostname']}/{member['pid']}"] = member["progress"]
        totals: Counter[str] = Counter()
        for progress in self._seen.values():
            totals.update(progress)
        return dict(totals)
