"""The accounts are worth something: each way to break invariant 1 is found out."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from faults import seam
from faults.ledger import Ledger, on_disk, plan_of
from recordings import recipe, write_recording
from retort.records import Chain, Request
from retort.store.plan import Plan, distinct, request_of
from retort.store.pool import partition_of

TEXT = "12 + 5 = 17. The answer is 17."


class Bought:
    """A pool with all that a recipe wants, each chain asked for once, and a fault half-way; then something is done."""

    def __init__(self, folder: Path) -> None:
        self.recipe_file = folder / "recipe.toml"
        self.recipe_file.write_text(recipe(write_recording(folder / "rec.jsonl", 2), str(folder / "store"), 2))
        self.plan: Plan = plan_of(self.recipe_file)
        self.requests = [
            request_of(prompt, index, self.plan.max_new_tokens)
            for prompts in self.plan.partitions.values()
            for prompt, index in itertools.product(distinct(prompts), range(2))
        ]
        self.ledger = Ledger(seam.Log(folder / "seam.jsonl"), on_disk(folder / "store"), flush_s=5.0)
        self.store = folder / "store"

    def buy(self, requests: Sequence[Request]) -> None:
        for event, request in itertools.product(("asked", "finished"), requests):
            seam.note(event, request, TEXT if event == "finished" else "")
        self.write([chain_of(request) for request in requests])

    def write(self, chains: Sequence[Chain], batch: str = "batch") -> None:
        for partition, group in itertools.groupby(chains, key=lambda chain: partition_of(chain.prompt_hash)):
            self.plan.pool.append(f"{batch}{partition}", list(group))

    @property
    def segments(self) -> list[Path]:
        return sorted(self.store.glob("pools/*/segments/*/*.parquet"))


def chain_of(request: Request) -> Chain:
    return Chain(
        prompt_hash=request.prompt_hash,
        index=request.index,
        prompt=request.prompt,
        text=TEXT,
        finish_reason="stop",
        num_prompt_tokens=9,
        num_tokens=6,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        problem_id=request.problem_id,
        thought=request.thought,
        finished_at_s=1.5,
    )


def change(bought: Bought) -> None:
    chain = chain_of(bought.requests[0])
    chains = bought.plan.pool.chains(partition_of(chain.prompt_hash), {(chain.prompt_hash, 0)}, chain.max_new_tokens)
    assert chains == [chain]
    bought.segments[0].unlink()
    bought.write([replace(chain, text="another")])


BREAKS: dict[str, tuple[Callable[[Bought], object], str]] = {
    "loses a chain": (lambda bought: bought.segments[0].unlink(), "lost or changed"),
    "changes a chain": (change, "lost or changed"),
    "keeps a chain twice": (lambda bought: bought.write([chain_of(bought.requests[0])], "other"), "kept twice"),
    "asks for a durable chain": (lambda bought: seam.note("asked", bought.requests[0]), "asked for again"),
}


@pytest.fixture
def bought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bought:
    monkeypatch.setenv(seam.LOG, str(tmp_path / "seam.jsonl"))
    monkeypatch.setenv(seam.NAME, "one")
    return Bought(tmp_path)


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_the_invariant_is_found_out(bought: Bought, name: str) -> None:
    bought.buy(bought.requests)
    assert f"{len(bought.requests)} chains: 0 lost" in bought.ledger.check(bought.recipe_file)
    breaks, told = BREAKS[name]
    breaks(bought)
    with pytest.raises(AssertionError, match=told):
        bought.ledger.check(bought.recipe_file)


def test_a_chain_that_is_missing_is_found_out(bought: Bought) -> None:
    bought.buy(bought.requests[1:])
    with pytest.raises(AssertionError, match="missing"):
        bought.ledger.check(bought.recipe_file)


def test_a_row_that_no_engine_gave_is_found_out(bought: Bought) -> None:
    bought.buy(bought.requests[1:])
    bought.write([replace(chain_of(bought.requests[0]), text="of the pool's own making")])
    with pytest.raises(AssertionError, match="not what an engine gave"):
        bought.ledger.check(bought.recipe_file)


def test_a_chain_that_is_durable_too_late_is_found_out(bought: Bought) -> None:
    first, *others = bought.requests
    seam.note("asked", first)
    seam.note("finished", first, TEXT)
    bought.buy(others)
    bought.ledger.hit("fault", time.monotonic() + bought.ledger.flush_s)
    bought.write([chain_of(first)])
    with pytest.raises(AssertionError, match="1 chains were not durable"):
        bought.ledger.check(bought.recipe_file)


def test_a_fault_while_nothing_is_in_flight_shows_nothing(bought: Bought) -> None:
    bought.buy(bought.requests)
    with pytest.raises(AssertionError, match="nothing was in flight"):
        bought.ledger.hit("fault", time.monotonic())
