"""Every engine meets the same contract, on the shipped teacher: vLLM's is the real one, and so is the server."""

import asyncio
import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from families import one_thread as one_thread
from recordings import recipe
from retort import prompts
from retort.engines import ENGINES, endpoint, hf, models, replay, vllm
from retort.engines.interface import (
    Completion,
    Engine,
    EngineDiedError,
    ModelConfig,
    PromptTooLongError,
    SamplingDistribution,
    until_stop,
)
from retort.loading import load
from retort.records import Chain, Request
from retort.rollouts import Rollout, roll_out, single_turn
from retort.run import prepare
from retort.store import open_store
from retort.store.plan import seed
from retort.tasks import arithmetic
from retort.thoughts import cues, socratic

PROBLEM = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
TEXT = prompts.render(PROBLEM, cues.COT)
WARM = SamplingDistribution(temperature=1.0)
GREEDY = SamplingDistribution(temperature=0.0)
KEPT: dict[str, Any] = {"logprobs": "tokens", "token_ids": True}
KEY = "the-key-of-the-tests"


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


def started(engine: Engine, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    loop.run_until_complete(engine.start())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped teacher, with a template that turns a user's message back into the prompt that it knows."""
    model = tmp_path_factory.mktemp("models") / "chatty"
    shutil.copytree(models.locate("shipped:teacher"), model)
    template = "{% for message in messages %}{{ message.content + '\\n' }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    return str(model)


@pytest.fixture(scope="module")
def vllm_engine(teacher: str, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    yield from started(vllm.Engine(vllm.Config(model=teacher, dtype="float32", max_model_len=512, **KEPT)), loop)


@pytest.fixture(scope="module")
def hf_engine(teacher: str, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    yield from started(hf.Engine(hf.Config(model=teacher, dtype="float32", **KEPT)), loop)


@pytest.fixture(scope="module")
def replay_engine(tmp_path_factory: pytest.TempPathFactory, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("rec") / "rec.jsonl"
    path.write_text(json.dumps({"question": PROBLEM.question, "completions": ["The answer is 7."] * 8}))
    yield from started(replay.Engine(replay.Config(paths=(str(path),))), loop)


@pytest.fixture(scope="module")
def server(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `vllm serve` runs, in a process of its own on a free port; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = ["--model", teacher, "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    sizes = ["--max-model-len", "512", "--max-num-seqs", "64", "--dtype", "float32"]
    plain = ["--enforce-eager", "--no-enable-chunked-prefill"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *named, *sizes, *plain],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": KEY},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-4000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        for one in (process, *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def asking(server: str, **fields: Any) -> endpoint.Config:
    known = {"model": "tiny", "revision": "1", "api": "completions", "server": "vllm", "api_key_env": "TINY_KEY"}
    return endpoint.Config.model_validate({"base_url": server, **known, **KEPT, **fields})


@pytest.fixture(scope="module")
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def endpoint_engine(server: str, key: None, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    yield from started(endpoint.Engine(asking(server)), loop)


@pytest.fixture(scope="module", params=["vllm", "hf", "endpoint"])
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
    engines: list[Engine] = [replay.Engine(replay.Config(paths=(str(path),))), model_engine]
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
        "endpoint": asking("http://127.0.0.1:9/v1"),
    }
    assert configs.keys() == ENGINES.keys()
    for name, config in configs.items():
        assert ENGINES[name].SEEDING in ("exact", "none")
        assert config.identity() == pickle.loads(pickle.dumps(config)).identity()  # noqa: S301
        assert config.num_gpus(has_gpus=False) == 0
        assert config.capacity > 0
        # What is kept of a chain's tokens says nothing of its model.
        if isinstance(config, ModelConfig):
            assert config.identity() == config.model_copy(update={"logprobs": "none", "token_ids": False}).identity()


def test_vllm_stops_at_the_budget_and_says_so(vllm_engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    chain = loop.run_until_complete(single_turn(vllm_engine, request(0, max_new_tokens=5), WARM))
    assert chain is not None
    assert (chain.finish_reason, chain.num_tokens) == ("length", 5)


def test_vllm_draws_the_same_chain_alone_or_with_siblings(vllm_engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    async def ask() -> None:
        together = await asyncio.gather(*(single_turn(vllm_engine, request(index), WARM) for index in range(8)))
        alone = await single_turn(vllm_engine, request(5), WARM)
        assert alone is not None
        assert together[5] is not None
        assert alone.text == together[5].text
        assert len({chain.text for chain in together if chain}) > 1, "all draws alike: the seeds do nothing"

    loop.run_until_complete(ask())


def test_vllm_survives_seeded_prompts_longer_than_one_prefill(
    vllm_engine: Engine, loop: asyncio.AbstractEventLoop
) -> None:
    long = [f"{TEXT}{'Tom has 12 apples. ' * 60} {number}" for number in range(12)]

    async def ask() -> int:
        chains = await asyncio.gather(*(single_turn(vllm_engine, request(0, 8, prompt), WARM) for prompt in long))
        return sum(chain is not None for chain in chains)

    assert loop.run_until_complete(ask()) == 12


def test_vllm_refuses_what_its_context_would_cut_off(vllm_engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(PromptTooLongError, match=r"max_new_tokens = 500 exceeds max_model_len = 512"):
        loop.run_until_complete(single_turn(vllm_engine, request(0, max_new_tokens=500), WARM))


def test_a_budget_that_no_prompt_fits_beside_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    assert models.context("shipped:teacher") == 2048
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(None, str(tmp_path / "store"), 1))
    wanted = load(file, ["teacher.rec.max_new_tokens=2048"])
    with pytest.raises(ValueError, match=r"^teacher\.rec\.max_new_tokens = 2048: shipped:teacher sees 2048 tokens"):
        prepare(wanted, open_store(wanted.store))


def test_vllm_counts_the_prompt_as_the_tokenizer_does(vllm_engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    from transformers import AutoTokenizer

    chain = loop.run_until_complete(single_turn(vllm_engine, request(0), WARM))
    assert chain is not None
    tokenizer = AutoTokenizer.from_pretrained(models.locate("shipped:teacher"))
    assert chain.num_prompt_tokens == len(tokenizer(TEXT)["input_ids"])


def test_vllm_asks_a_chat_model_through_its_template(vllm_engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    chat = loop.run_until_complete(vllm_engine.complete(prompts.as_chat(TEXT), request(0), GREEDY))
    plain = loop.run_until_complete(vllm_engine.complete(TEXT, request(0), GREEDY))
    assert plain is not None
    assert chat == plain
    assert "The answer is" in plain.text


def forward(model: str, token_ids: Sequence[int]) -> list[float]:
    """Log-probability of each token but the first, by a plain forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        scores = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(torch.tensor([token_ids])).logits[0]
    return [float(scores[at].log_softmax(-1)[token]) for at, token in enumerate(token_ids[1:])]


@pytest.mark.parametrize("stop", [(), (" answer",)])
def test_log_probabilities_are_the_models_own_whatever_it_was_drawn_with(
    model_engine: Engine, teacher: str, stop: tuple[str, ...], loop: asyncio.AbstractEventLoop
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    prompt = tokenizer.encode(TEXT)
    drawn = SamplingDistribution(temperature=0.6, top_p=0.9, top_k=5, stop=stop)
    chain = loop.run_until_complete(single_turn(model_engine, request(1), drawn))
    assert chain is not None
    assert chain.token_logprobs == pytest.approx(
        forward(teacher, [*prompt, *chain.token_ids])[len(prompt) - 1 :], abs=1e-3
    )
    assert chain.logprob == pytest.approx(sum(chain.token_logprobs), abs=1e-4)
    assert len(chain.token_ids) == chain.num_tokens
    written = tokenizer.decode(chain.token_ids)
    if stop:
        assert written.startswith(chain.text + stop[0]), "the tokens that spell the stop string are counted"
    else:
        assert chain.token_ids[-1] == tokenizer.eos_token_id
        assert written.startswith(chain.text)


def test_hf_and_vllm_say_and_think_the_same(
    hf_engine: Engine, vllm_engine: Engine, loop: asyncio.AbstractEventLoop
) -> None:
    problems = list(arithmetic.load(arithmetic.Config(id="arithmetic", train=16, dev=0, test=0)))

    async def ask(engine: Engine) -> list[Completion]:
        asked = (engine.complete(prompts.render(problem, cues.COT), request(0), GREEDY) for problem in problems)
        return [completion for completion in await asyncio.gather(*asked) if completion is not None]

    ours, theirs = (loop.run_until_complete(ask(engine)) for engine in (hf_engine, vllm_engine))
    bare = [[one._replace(logprob=None, token_logprobs=()) for one in completions] for completions in (ours, theirs)]
    assert bare[0] == bare[1]
    assert len(bare[0]) == 16
    for one, other in zip(ours, theirs, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_what_is_kept_of_tokens_is_what_was_asked_for() -> None:
    completion = Completion("a b", "stop", 3, 2)
    kept = {
        mode: hf.Config(model="shipped:teacher", logprobs=mode).kept(completion, [-1.0, -0.5], [7, 0])
        for mode in ("none", "sum", "tokens")
    }
    assert kept["none"] == completion
    assert kept["sum"] == completion._replace(logprob=-1.5)
    assert kept["tokens"] == completion._replace(logprob=-1.5, token_logprobs=(-1.0, -0.5))
    untold = hf.Config(model="shipped:teacher", logprobs="tokens", token_ids=True).kept(completion, (), (7, 0))
    assert untold == completion._replace(token_ids=(7, 0))


def test_a_server_is_asked_in_words_or_in_messages(server: str, key: None, loop: asyncio.AbstractEventLoop) -> None:
    """The template turns a message back into the prompt, so both ways must give the same greedy chain."""

    async def ask(api: str, prompt: str | prompts.Messages) -> list[Completion]:
        engine = endpoint.Engine(asking(server, api=api))
        await engine.start()
        completions = await asyncio.gather(*(engine.complete(prompt, request(index), GREEDY) for index in range(6)))
        engine.close()
        return completions

    ways = (("completions", TEXT), ("chat", TEXT), ("chat", prompts.as_chat(TEXT)))
    first, *others = [one for way in ways for one in loop.run_until_complete(ask(*way))]
    assert "The answer is" in first.text
    assert first.num_tokens == len(first.token_ids) == len(first.token_logprobs)
    for other in others:
        assert other.token_logprobs == pytest.approx(first.token_logprobs, abs=1e-3)
        assert other._replace(logprob=None, token_logprobs=()) == first._replace(logprob=None, token_logprobs=())


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_siblings_of_a_server_are_draws_of_their_own(
    api: str, server: str, key: None, loop: asyncio.AbstractEventLoop
) -> None:
    async def ask() -> list[Completion]:
        engine = endpoint.Engine(asking(server, api=api, siblings=8))
        await engine.start()
        completions = await asyncio.gather(*(engine.complete(TEXT, request(index), WARM) for index in range(16)))
        engine.close()
        return completions

    completions = loop.run_until_complete(ask())
    assert len({completion.text for completion in completions}) > 4
    for completion in completions:
        assert completion.num_tokens == len(completion.token_ids) == len(completion.token_logprobs) > 0


def test_what_a_server_refuses_is_said_by_the_name_of_the_setting(
    server: str, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    async def refused(prompt: str = TEXT, max_new_tokens: int = 8, **fields: Any) -> ValueError:
        engine = endpoint.Engine(asking(server, **fields))
        await engine.start()
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
            await engine.complete(prompt, request(0, max_new_tokens), SamplingDistribution(temperature=2.0))
        engine.close()
        return caught.value

    monkeypatch.setenv("TINY_KEY", KEY)
    too_long = loop.run_until_complete(refused(prompt="?" * 500, max_new_tokens=500))
    assert isinstance(too_long, PromptTooLongError)
    assert "of max_new_tokens = 500" in str(too_long)
    too_long = loop.run_until_complete(refused(prompt="?" * 600))
    assert isinstance(too_long, PromptTooLongError)
    assert "512" in str(too_long)
    assert "model = 'other'" in str(loop.run_until_complete(refused(model="other")))
    monkeypatch.setenv("TINY_KEY", "wrong")
    for name in ("TINY_KEY", ""):
        assert "api_key_env" in str(loop.run_until_complete(refused(api_key_env=name)))


@contextlib.contextmanager
def on_its_own(loop: asyncio.AbstractEventLoop) -> Generator[vllm.Engine]:
    """An engine that starts while its loop goes on."""
    engine = vllm.Engine(vllm.Config(model="shipped:student", dtype="float32", max_num_seqs=32))

    async def start() -> int:
        ticks = 0
        starting = asyncio.ensure_future(engine.start())
        while not starting.done():
            await asyncio.sleep(0.1)
            ticks += 1
        await starting
        return ticks

    try:
        assert loop.run_until_complete(start()) > 20, "the event loop stood still while the engine loaded"
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def doomed(loop: asyncio.AbstractEventLoop) -> Iterator[vllm.Engine]:
    """An engine for a test to end."""
    with on_its_own(loop) as engine:
        yield engine


async def opened(engine: vllm.Engine) -> list["asyncio.Task[Completion]"]:
    """Requests that are under way; none ends soon."""
    hot = SamplingDistribution(temperature=2.0)
    tasks = [asyncio.create_task(engine.complete(TEXT, request(index, 1500), hot)) for index in range(16)]
    seen = set[int]()
    while len(seen) < 4:
        seen.add(engine.num_tokens)
        await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks), "tokens are to be counted before a request ends"
    return tasks


def lives(process: psutil.Process) -> bool:
    """Whether it is more than an entry that its new parent has not cleared away."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def died(tasks: Sequence["asyncio.Task[Completion]"]) -> bool:
    heard = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=60)
    return {type(one) for one in heard} == {EngineDiedError}


def test_a_part_of_a_chain_that_vllm_breaks_off_is_no_chain(
    doomed: vllm.Engine, loop: asyncio.AbstractEventLoop
) -> None:
    async def break_off() -> bool:
        tasks = await opened(doomed)
        assert doomed._engine is not None
        states = doomed._engine.output_processor.request_states
        await doomed._engine.abort(list(states), internal=True)
        return await died(tasks)

    assert loop.run_until_complete(break_off())


def test_requests_hear_that_their_engine_was_killed(doomed: vllm.Engine, loop: asyncio.AbstractEventLoop) -> None:
    async def kill() -> None:
        tasks = await opened(doomed)
        os.kill(doomed._processes[0].pid, signal.SIGKILL)
        assert await died(tasks)
        with pytest.raises(EngineDiedError):
            await doomed.complete(TEXT, request(0), WARM)
        await asyncio.to_thread(doomed.close)

    processes = list(doomed._processes)
    assert processes
    loop.run_until_complete(kill())
    assert [process for process in processes if lives(process)] == []


@pytest.mark.slow
def test_a_hung_engine_is_silent_and_can_be_closed(loop: asyncio.AbstractEventLoop) -> None:
    async def hang(engine: vllm.Engine) -> None:
        tasks = await opened(engine)
        os.kill(engine._processes[0].pid, signal.SIGSTOP)
        await asyncio.sleep(1)  # what was on its way arrives
        silent = engine.num_tokens
        await asyncio.sleep(1)
        assert engine.num_tokens == silent > 0
        assert not any(task.done() for task in tasks)
        await asyncio.to_thread(engine.close)
        assert await died(tasks)

    with on_its_own(loop) as engine:
        processes = list(engine._processes)
        assert processes
        loop.run_until_complete(hang(engine))
    assert [process for process in processes if lives(process)] == []
