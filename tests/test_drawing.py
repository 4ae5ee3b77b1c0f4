"""How far a prompt is drawn under `until_correct`, and how much may be bought."""

import asyncio
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from retort.sampling.drawing import Allowance, Drawn, draw_until_correct
from retort.store.plan import prefix


def draw_all(
    is_right: list[bool], known: dict[int, bool], num_correct: int, seed: int, lacking_from: int | None = None
) -> tuple[set[int], Counter[Drawn], int]:
    """What `until_correct` draws of chains of which it is given who is right; the most that were open at once."""
    rng = random.Random(seed)
    drawn: set[int] = set()
    open_now = most = 0

    async def draw(index: int) -> Drawn:
        nonlocal open_now, most
        assert index not in drawn
        assert index not in known, "a durable chain was asked for again"
        drawn.add(index)
        open_now += 1
        most = max(most, open_now)
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        open_now -= 1
        if lacking_from is not None and index >= lacking_from:
            return "lacking"
        return "accepted" if is_right[index] else "rejected"

    missing = [index for index in range(len(is_right)) if index not in known]
    outcomes = asyncio.run(draw_until_correct(num_correct, known, missing, draw))
    return drawn, outcomes, most


@settings(max_examples=300, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 99), st.data())
def test_what_is_drawn_is_the_shortest_prefix_whatever_the_order_of_finishing(
    is_right: list[bool], num_correct: int, seed: int, data: st.DataObject
) -> None:
    durable = data.draw(st.sets(st.integers(0, len(is_right) - 1)))
    known = {index: is_right[index] for index in durable}
    drawn, outcomes, most = draw_all(is_right, known, num_correct, seed)
    shortest, _ = prefix(dict(enumerate(is_right)), num_correct)
    assert drawn == set(range(shortest)) - durable
    assert outcomes["accepted"] + outcomes["rejected"] == len(drawn)
    assert most <= num_correct
    assert prefix(known | {index: is_right[index] for index in drawn}, num_correct)[0] == shortest


def test_a_chain_that_cannot_be_had_ends_the_prefix_and_counts_for_all_after_it() -> None:
    drawn, outcomes, _ = draw_all([False] * 10, {}, 2, 0, lacking_from=4)
    assert outcomes["rejected"] == 4
    assert outcomes["lacking"] == 6
    assert drawn <= set(range(6))


def test_a_gap_ends_a_prefix() -> None:
    assert prefix({0: True, 2: True}, 2) == (1, False)
    assert prefix({0: True, 1: False, 2: True, 3: True}, 2) == (3, True)
    assert prefix({}, 1) == (0, False)


def test_an_allowance_is_never_exceeded_and_what_was_reserved_too_much_is_spent_by_others() -> None:
    rng = random.Random(0)
    allowance, spent, refused = Allowance(10_000), 0, 0

    async def spend() -> None:
        nonlocal spent, refused
        if not await allowance.reserve(130):
            refused += 1
            return
        await asyncio.sleep(rng.uniform(0, 0.002))
        used = rng.randint(10, 50)
        spent += used
        allowance.settle(130, used)

    async def check() -> None:
        await asyncio.gather(*(spend() for _ in range(1000)))
        assert await Allowance(None).reserve(10**12)

    asyncio.run(check())
    assert 10_000 - 130 < spent <= 10_000, "all at once, and yet nothing is left over that would do for one more"
    assert 0 < refused < 1000
