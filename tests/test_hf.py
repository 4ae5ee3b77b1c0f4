"""The engine `hf` draws by the seed of a request alone, counts as vLLM does, and refuses what a model cannot see."""

import asyncio
import itertools
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

import families
from families import one_thread as one_thread
from retort.engines import hf, models, vllm
from retort.engines.interface import Completion, PromptTooLongError, SamplingDistribution
from retort.prompts import as_chat, render
from retort.records import Request
from retort.tasks import arithmetic
from retort.thoughts import cues

GREEDY = SamplingDistribution(temperature=0)
WARM = SamplingDistribution(temperature=1.0)
PROMPTS = [f"Question: {text}\n" for text in ("Who?", "Tom has 12 apples. He buys 5 more.", "How many " * 20)]
PROBLEM = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
TEXT = render(PROBLEM, cues.COT)
Asked = tuple[str, Request, SamplingDistribution]


def request(seed: int, max_new_tokens: int = 24) -> Request:
    return Request("hash", 0, "", seed, max_new_tokens, "p/train/0", "cot", "")


def ask(model: str, asked: Sequence[Asked], batch_size: int = 32, **fields: Any) -> list[Completion]:
    async def all_at_once() -> list[Completion]:
        engine = hf.Engine(hf.Config(model=model, batch_size=batch_size, dtype="float32", device="cpu", **fields))
        await engine.start()
        completions = await asyncio.gather(*(engine.complete(*each) for each in asked))
        engine.close()
        return completions

    return asyncio.run(all_at_once())


@pytest.fixture(scope="module", params=["llama", "gpt2", "opt", "t5", "bart"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return families.save(request.param, tmp_path_factory.mktemp(request.param), scale=4.0)


def test_a_seed_draws_the_same_alone_and_in_any_batch(model: str) -> None:
    asked: list[Asked] = [(prompt, request(seed), WARM) for prompt in PROMPTS for seed in (1, 2, 2**32 + 3)]
    together = ask(model, asked)
    assert len({completion.text for completion in together}) == len(asked), "the seeds or the prompts do nothing"
    assert ask(model, asked, batch_size=1) == together
    assert ask(model, asked[::-1], batch_size=4)[::-1] == together


def test_rows_of_a_batch_end_at_their_own_budgets(model: str) -> None:
    budgets = [3, 24, 1, 10]
    completions = ask(model, [(PROMPTS[1], request(7, budget), WARM) for budget in budgets])
    assert [(completion.num_tokens, completion.finish_reason) for completion in completions] == [
        (budget, "length") for budget in budgets
    ]
    for completion in completions:
        assert completions[1].text.startswith(completion.text)


def test_a_row_is_answered_as_soon_as_it_has_ended(model: str) -> None:
    answered = threading.Event()
    steps = itertools.count()

    def hold(*_: object) -> None:
        if next(steps) == 2:
            assert answered.wait(timeout=20), "the model was to take its third step and nobody had the row of two"

    async def ask_both() -> list[Completion]:
        engine = hf.Engine(hf.Config(model=model, dtype="float32", device="cpu"))
        await engine.start()
        assert engine._model is not None
        engine._model._model.register_forward_pre_hook(hold)
        long, short = (asyncio.create_task(engine.complete(PROMPTS[1], request(7, most), WARM)) for most in (24, 2))
        completions = [await short]
        assert not long.done()
        assert engine.num_tokens == 4, "tokens are to be counted before a row ends"
        answered.set()
        return [*completions, await long]

    short, long = asyncio.run(ask_both())
    assert (short.num_tokens, long.num_tokens) == (2, 24)
    assert next(steps) == 24, "the two rows were not of one batch"


def test_a_stop_string_ends_a_row_and_is_not_part_of_its_text(model: str) -> None:
    (whole,) = ask(model, [(PROMPTS[1], request(5), WARM)])
    stop = whole.text[8:11]
    (cut,) = ask(model, [(PROMPTS[1], request(5), WARM.model_copy(update={"stop": ("never said", stop)}))])
    assert (cut.text, cut.finish_reason, cut.stop) == (whole.text[: whole.text.index(stop)], "stop", stop)
    assert whole.stop is None
    assert 0 < cut.num_tokens < whole.num_tokens == 24


def test_filters_leave_the_likeliest_token_where_they_are_narrowest(model: str) -> None:
    hot = SamplingDistribution(temperature=5.0)
    narrow = [hot.model_copy(update={"top_k": 1}), hot.model_copy(update={"top_p": 1e-6})]
    asked: list[Asked] = [(PROMPTS[1], request(5), distribution) for distribution in (GREEDY, *narrow, hot)]
    greedy, *filtered, free = ask(model, asked)
    assert filtered == [greedy, greedy]
    assert free != greedy


def test_what_a_checkpoint_recommends_changes_no_draw(model: str, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    GenerationConfig(
        eos_token_id=families.END,
        num_beams=3,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        forced_bos_token_id=9,
        max_length=4,
    ).save_pretrained(changed)
    assert ask(str(changed), [(PROMPTS[0], request(0), GREEDY)]) == ask(model, [(PROMPTS[0], request(0), GREEDY)])


def test_the_noise_draws_from_the_softmax_of_the_scores() -> None:
    count = 20_000
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    draw = hf._SeededNoise(range(count), torch.device("cpu"))
    for _ in range(3):  # one vector a step: each is a fresh draw
        drawn = draw(torch.empty(0), chances.log().repeat(count, 1)).argmax(dim=1)
        shares = drawn.bincount(minlength=5) / count
        assert (shares - chances).abs().max() < 0.015  # four standard errors
        assert shares[4] == 0


def test_the_end_token_is_counted_and_not_shown() -> None:
    tokenizer = AutoTokenizer.from_pretrained(models.locate("shipped:teacher"))
    (completion,) = ask("shipped:teacher", [(TEXT, request(0, 96), GREEDY)])
    assert (completion.finish_reason, completion.stop) == ("stop", None)
    assert completion.text.endswith(".")
    assert completion.num_prompt_tokens == len(tokenizer(TEXT)["input_ids"])
    assert completion.num_tokens == len(tokenizer(completion.text)["input_ids"]) + 1
    at_the_budget = ask("shipped:teacher", [(TEXT, request(0, completion.num_tokens), GREEDY)])
    assert at_the_budget == [completion], "a row that ends by itself with its last token was not cut off"


def test_a_row_whose_first_token_ends_it_has_one_token_and_no_text(tmp_path: Path) -> None:
    model = families.random_model(families.architecture("t5"), scale=0.0)  # of equal scores greedy takes token 0
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models.locate("shipped:student")).save_pretrained(tmp_path)
    (completion,) = ask(str(tmp_path), [("Who?", request(0), GREEDY)])
    assert (completion.text, completion.finish_reason, completion.num_tokens) == ("", "stop", 1)


@pytest.mark.parametrize(
    ("family", "prompt_tokens", "budget", "is_refused"),
    [
        ("llama", 200, 56, False),
        ("llama", 200, 57, True),
        ("opt", 200, 56, False),
        ("opt", 200, 57, True),
        ("bart", 200, 256, False),
        ("bart", 256, 8, False),
        ("bart", 257, 8, True),
        ("bart", 8, 257, True),
        ("t5", 400, 400, False),
    ],
)
def test_what_a_model_has_no_positions_for_is_refused(
    family: str, prompt_tokens: int, budget: int, is_refused: bool, tmp_path: Path
) -> None:
    model = families.save(family, tmp_path)
    asked: list[Asked] = [("?" * prompt_tokens, request(0, budget), GREEDY)]
    if is_refused:
        with pytest.raises(
            PromptTooLongError, match=rf"max_new_tokens = {budget} need \d+ positions, the model has 256; lower"
        ):
            ask(model, asked)
    else:
        (completion,) = ask(model, asked)
        assert completion.num_prompt_tokens == prompt_tokens


def test_a_tokenizer_bounds_the_prompts_of_a_model_with_relative_positions(tmp_path: Path) -> None:
    model = families.save("t5", tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 100}))
    with pytest.raises(PromptTooLongError, match="the model has 100"):
        ask(model, [("?" * 101, request(0), GREEDY)])


def test_a_request_that_is_given_up_leaves_its_batch_running() -> None:
    async def give_one_up() -> list[Completion | BaseException]:
        engine = hf.Engine(hf.Config(model="shipped:student", max_wait_ms=300, dtype="float32"))
        await engine.start()
        tasks = [asyncio.create_task(engine.complete(PROMPTS[0], request(seed), WARM)) for seed in range(3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, given_up, last = asyncio.run(give_one_up())
    assert isinstance(given_up, asyncio.CancelledError)
    assert [first, last] == ask("shipped:student", [(PROMPTS[0], request(seed), WARM) for seed in (0, 2)])


def test_a_model_that_cannot_be_loaded_is_found_out_at_the_start(tmp_path: Path) -> None:
    model = families.save("llama", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SafetensorError):
        asyncio.run(hf.Engine(hf.Config(model=model)).start())


def plain_logprobs(model: str, prompt: str, token_ids: Sequence[int]) -> list[float]:
    """Log-probability of each new token, by one plain forward pass."""
    is_encoder_decoder = models.is_encoder_decoder(model, None)
    auto: Any = AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked, new = torch.tensor([tokenizer.encode(prompt)]), torch.tensor([list(token_ids)])
    with torch.inference_mode():
        loaded = auto.from_pretrained(model, dtype=torch.float32).eval()
        if is_encoder_decoder:
            scores = loaded(input_ids=asked, labels=new).logits[0]
        else:
            scores = loaded(torch.cat([asked, new], dim=1)).logits[0, asked.shape[1] - 1 : -1]
    return scores.log_softmax(-1).gather(1, new[0][:, None])[:, 0].tolist()


def test_log_probabilities_are_the_models_own_whatever_it_was_drawn_with(model: str) -> None:
    narrow = SamplingDistribution(temperature=0.5, top_p=0.8, top_k=9)
    asked: list[Asked] = [(prompt, request(5), narrow) for prompt in PROMPTS]
    for (prompt, _, _), completion in zip(asked, ask(model, asked, logprobs="tokens", token_ids=True), strict=True):
        plain = plain_logprobs(model, prompt, completion.token_ids)
        assert completion.token_logprobs == pytest.approx(plain, abs=1e-3)
        assert completion.logprob == pytest.approx(sum(plain), abs=1e-2)
        assert len(completion.token_ids) == completion.num_tokens
        assert min(plain) < -0.1, "the model is sure of everything"


def test_where_a_model_fails_under_way_rows_that_have_ended_keep_their_answers() -> None:
    steps = itertools.count()

    def fail(*_: object) -> None:
        if next(steps) == 2:
            raise RuntimeError("the third step")

    async def ask_three() -> list[Completion | BaseException]:
        engine = hf.Engine(hf.Config(model="shipped:student", dtype="float32", device="cpu"))
        await engine.start()
        assert engine._model is not None
        engine._model._model.register_forward_pre_hook(fail)
        asked = (engine.complete(PROMPTS[0], request(9, most), WARM) for most in (24, 1, 12))
        return await asyncio.gather(*asked, return_exceptions=True)

    completions = asyncio.run(ask_three())
    assert [str(one) for one in completions if not isinstance(one, Completion)] == ["the third step"] * 2
    assert completions[1] == ask("shipped:student", [(PROMPTS[0], request(9, 1), WARM)])[0]


def test_a_chat_model_is_asked_through_its_template(tmp_path: Path) -> None:
    shutil.copytree(models.locate("shipped:teacher"), tmp_path, dirs_exist_ok=True)
    # This template turns the message back into the prompt that the teacher knows, so that it can answer.
    (tmp_path / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content + '\\n' }}{% endfor %}"
    )

    async def both() -> list[Completion]:
        engine = hf.Engine(hf.Config(model=str(tmp_path)))
        await engine.start()
        return [await engine.complete(prompt, request(0, 96), GREEDY) for prompt in (as_chat(TEXT), TEXT)]

    chat, plain = asyncio.run(both())
    assert chat == plain
    assert "The answer is" in chat.text


def test_a_model_has_one_identity_under_both_engines() -> None:
    assert hf.Config(model="shipped:student").identity() == vllm.Config(model="shipped:student").identity()
