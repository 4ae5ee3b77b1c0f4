"""Every engine meets the same contract; vLLM's is the real one, on the shipped teacher."""

import asyncio
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retort import prompts
from retort.engines import ENGINES, hf, models, replay, vllm
from retort.engines.interface import Engine, PromptTooLongError, SamplingDistribution, until_stop
from retort.records import Chain, Request
from retort.rollouts import Rollout, roll_out, single_turn
from retort.store.plan import seed
from retort.tasks import arithmetic
from retort.thoughts import cues, socratic

PROBLEM = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
TEXT = prompts.render(PROBLEM, cues.COT)
WARM = SamplingDistribution(temperature=1.0)
GREEDY = SamplingDistribution(temperature=0.0)


def request(index: int, max_new_tokens: int = 96, prompt: str = TEXT) -> Request:
    canonical = prompts.canonical(prompt)
    hash_ = prompts.prompt_hash(canonical)
    return Request(hash_, index, canonical, seed(hash_, index), max_new_tokens, PROBLEM.id, "cot", PROBLEM.question)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for the module: an engine lives in the loop that started it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0.1))  # lets the tasks of a closed engine end
    loop.close()


@pytest.fixture(scope="module")
def vllm_engine(loop: asyncio.AbstractEventLoop) -> Iterator[vllm.Engine]:
    del loop  # named so that it is closed after the engine
    made = vllm.Engine(vllm.Config(model="shipped:teacher", dtype="float32", max_model_len=512))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hf_engine() -> Iterator[hf.Engine]:
    made = hf.Engine(hf.Config(model="shipped:teacher", dtype="float32"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def replay_engine(tmp_path_factory: pytest.TempPathFactory) -> replay.Engine:
    path: Path = tmp_path_factory.mktemp("rec") / "rec.jsonl"
    path.write_text(json.dumps({"question": PROBLEM.question, "completions": ["The answer is 7."] * 8}))
    return replay.Engine(replay.Config(paths=(str(path),)))


@pytest.fixture(scope="module", params=["vllm", "hf"])
def model_engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(f"{request.param}_engine")


def test_a_chain_answers_its_own_request(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    asked = request(3)
    chain = loop.run_until_complete(single_turn(engine, asked, WARM))
    assert chain is not None
    assert (chain.prompt_hash, chain.index, chain.prompt) == (asked.prompt_hash, 3, asked.prompt)
    assert "The answer is" in chain.text
    assert chain.finish_reason == "stop"
    assert (chain.seed, chain.max_new_tokens) == (asked.seed, 96)


def test_many_requests_at_once_give_each_its_own_chain(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    async def ask() -> list[int]:
        chains = await asyncio.gather(*(single_turn(engine, request(index), WARM) for index in range(8)))
        return [chain.index for chain in chains if chain is not None]

    assert loop.run_until_complete(ask()) == list(range(8))


def test_a_completion_says_which_stop_string_ended_it(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    stops = ("never said", " answer is", "answer")
    for stop, said in (((), None), (stops, "answer"), (stops[:2], " answer is"), (stops[:1], None)):
        distribution = GREEDY.model_copy(update={"stop": stop})
        completion = loop.run_until_complete(engine.complete(TEXT, request(0), distribution))
        assert completion is not None
        assert (completion.stop, completion.finish_reason) == (said, "stop")
        assert ("answer" in completion.text) == (said is None)


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("a b c", (), ("a b c", None)),
        ("a b c", ("d", "e"), ("a b c", None)),
        ("a b c b", ("b", "c"), ("a ", "b")),
        ("a b c", ("c", "b"), ("a ", "b")),
        ("a b c", ("a b c", "b"), ("a ", "b")),  # the longer begins first and ends last
        ("a b c", ("b", "a b"), ("a ", "b")),  # both end here: the first of the list, as in vLLM
        ("a b c", ("a b", "b"), ("", "a b")),
    ],
)
def test_the_stop_string_that_is_complete_first_ends_a_text(
    text: str, stops: tuple[str, ...], cut: tuple[str, str | None]
) -> None:
    assert until_stop(text, stops) == cut


def test_a_later_prompt_that_a_model_cannot_see_cuts_off_its_own_chain(
    model_engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    """What the first student asks in chain 0 fills the prompt of the second."""
    path = tmp_path / "asking.jsonl"
    path.write_text(json.dumps({"question": PROBLEM.question, "completions": ["How? " * 2_000, "How many?"]}))
    engines = [replay.Engine(replay.Config(paths=(str(path),))), model_engine]
    settings = socratic.Iterative()
    asked = [request(index, prompt=socratic.first_prompt(PROBLEM, settings)) for index in (0, 1)]

    async def ask() -> list[Chain | None]:
        return await asyncio.gather(*(roll_out(engines, one, WARM, Rollout(iterative=settings)) for one in asked))

    cut_off, other = loop.run_until_complete(ask())
    assert cut_off is not None
    assert other is not None
    assert (cut_off.finish_reason, len(cut_off.turns), cut_off.num_tokens) == ("length", 2, 0)
    assert len(other.turns) == 2
    assert other.num_tokens > 0


def test_every_engine_says_how_it_treats_seeds_and_what_its_model_is(tmp_path: Path) -> None:
    path = tmp_path / "rec.jsonl"
    path.write_text(json.dumps({"question": "q", "completions": ["a"]}))
    configs = {
        "vllm": vllm.Config(model="shipped:teacher"),
        "hf": hf.Config(model="shipped:teacher"),
        "replay": replay.Config(paths=(str(path),)),
    }
    assert configs.keys() == ENGINES.keys()
    for name, config in configs.items():
        assert ENGINES[name].SEEDING in ("exact", "none")
        assert config.identity() == pickle.loads(pickle.dumps(config)).identity()  # noqa: S301
        assert config.num_gpus(has_gpus=False) == 0


def test_vllm_stops_at_the_budget_and_says_so(vllm_engine: vllm.Engine, loop: asyncio.AbstractEventLoop) -> None:
    chain = loop.run_until_complete(single_turn(vllm_engine, request(0, max_new_tokens=5), WARM))
    assert chain is not None
    assert (chain.finish_reason, chain.num_tokens) == ("length", 5)


def test_vllm_draws_the_same_chain_alone_or_with_siblings(
    vllm_engine: vllm.Engine, loop: asyncio.AbstractEventLoop
) -> None:
    async def ask() -> None:
        together = await asyncio.gather(*(single_turn(vllm_engine, request(index), WARM) for index in range(8)))
        alone = await single_turn(vllm_engine, request(5), WARM)
        assert alone is not None
        assert together[5] is not None
        assert alone.text == together[5].text
        assert len({chain.text for chain in together if chain}) > 1, "all draws alike: the seeds do nothing"

    loop.run_until_complete(ask())


def test_vllm_survives_seeded_prompts_longer_than_one_prefill(
    vllm_engine: vllm.Engine, loop: asyncio.AbstractEventLoop
) -> None:
    long = [f"{TEXT}{'Tom has 12 apples. ' * 60} {number}" for number in range(12)]

    async def ask() -> int:
        chains = await asyncio.gather(*(single_turn(vllm_engine, request(0, 8, prompt), WARM) for prompt in long))
        return sum(chain is not None for chain in chains)

    assert loop.run_until_complete(ask()) == 12


def test_vllm_refuses_what_its_context_would_cut_off(vllm_engine: vllm.Engine, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(PromptTooLongError, match=r"max_new_tokens = 500 exceeds max_model_len = 512"):
        loop.run_until_complete(single_turn(vllm_engine, request(0, max_new_tokens=500), WARM))


def test_vllm_counts_the_prompt_as_the_tokenizer_does(
    vllm_engine: vllm.Engine, loop: asyncio.AbstractEventLoop
) -> None:
    from transformers import AutoTokenizer

    chain = loop.run_until_complete(single_turn(vllm_engine, request(0), WARM))
    assert chain is not None
    tokenizer = AutoTokenizer.from_pretrained(models.locate("shipped:teacher"))
    assert chain.num_prompt_tokens == len(tokenizer(TEXT)["input_ids"])


def test_vllm_asks_a_chat_model_through_its_template(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    model = tmp_path / "chatty"
    shutil.copytree(models.locate("shipped:teacher"), model)
    # This template turns the message back into the prompt that the teacher knows, so that it can answer.
    template = "{% for message in messages %}{{ message.content + '\\n' }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    made = vllm.Engine(vllm.Config(model=str(model), dtype="float32", max_model_len=512))
    canonical = prompts.canonical(prompts.as_chat(TEXT))
    asked = replace(request(0), prompt=canonical, prompt_hash=prompts.prompt_hash(canonical))
    chain = loop.run_until_complete(single_turn(made, asked, SamplingDistribution(temperature=0.0)))
    plain = loop.run_until_complete(single_turn(made, request(0), SamplingDistribution(temperature=0.0)))
    made.close()
    assert chain is not None
    assert plain is not None
    assert (chain.text, chain.num_prompt_tokens) == (plain.text, plain.num_prompt_tokens)
    assert "The answer is" in chain.text
