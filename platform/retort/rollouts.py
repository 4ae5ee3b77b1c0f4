"""How one request becomes one chain, given an engine for each role. Plain asyncio; knows nothing of Ray.

A rollout of several turns is one chain (DESIGN, invariant 4): its prompt is the first prompt, from which all others
follow; turn t of chain i draws with the seed hash(prompt, i, t); `max_new_tokens` bounds each turn; one turn that is
cut off cuts off the chain. A first prompt that a model cannot see is refused; that of a later turn holds what models
wrote, so one that is too long cuts off the chain, as it would again in every rerun.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from retort.engines.interface import Completer, Completion, PromptTooLongError, SamplingDistribution
from retort.prompts import Messages
from retort.records import Chain, FinishReason, Request
from retort.solvers import calculator
from retort.thoughts import socratic
from retort.thoughts.socratic import Iterative, Role, Step

VERSION = 1
"""Part of the identity of a pool whose rollout is not plain: raise it when a prompt of a turn or a part changes."""

MAX_CALCULATIONS = 32
"""Parts of one turn, each up to a `>>`; a model that writes more is in a loop."""


class Rollout(BaseModel):
    """How a model is asked; with its checkpoints it is what a pool's chains are drawn from."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    calculator: bool = False
    """Compute the values of `<<16-3=` while the model writes. Leave some positions free: a value may be longer."""
    iterative: Iterative | None = None
    """How several models share a problem; None asks one model once."""

    @property
    def is_plain(self) -> bool:
        return not self.calculator and self.iterative is None


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of an engine within a rollout, as it is kept in `Chain.turns`."""

    role: str
    prompt: str
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    seed: int


@dataclass
class _Talk:
    """A rollout under way."""

    request: Request
    distribution: SamplingDistribution
    turns: list[Turn] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    @property
    def is_cut_off(self) -> bool:
        return any(turn.finish_reason == "length" for turn in self.turns)

    async def turn(self, engine: Completer, role: str, prompt: str | Messages, calculates: bool) -> str | None:
        """What the engine says to a prompt, as a new turn. None where it has nothing to give."""
        number = len(self.turns)
        seed = turn_seed(self.request, number)
        try:
            if calculates:
                completion = await _calculating(engine, prompt, self.request, self.distribution, number)
            else:
                completion = await engine.complete(prompt, replace(self.request, seed=seed), self.distribution)
        except PromptTooLongError:
            if number == 0:
                raise
            completion = Completion("", "length", num_prompt_tokens=0, num_tokens=0, logprob=0.0)
        if completion is None:
            return None
        turn = Turn(
            role=role,
            prompt=prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False),
            text=completion.text,
            finish_reason=completion.finish_reason,
            num_prompt_tokens=completion.num_prompt_tokens,
            num_tokens=completion.num_tokens,
            seed=seed,
        )
        self.turns.append(turn)
        self.completions.append(completion)
        return completion.text

    def chain(self, text: str, finish_reason: FinishReason) -> Chain:
        """The rollout as one chain; it stores its turns where there are several."""
        turns = tuple(json.dumps(asdict(turn), ensure_ascii=False) for turn in self.turns)
        whole = _whole(self.completions, text, finish_reason)
        return Chain(
            prompt_hash=self.request.prompt_hash,
            index=self.request.index,
            prompt=self.request.prompt,
            text=text,
            finish_reason=finish_reason,
            num_prompt_tokens=whole.num_prompt_tokens,
            num_tokens=whole.num_tokens,
            max_new_tokens=self.request.max_new_tokens,
            seed=self.request.seed,
            problem_id=self.request.problem_id,
            thought=self.request.thought,
            finished_at_s=time.time(),
            turns=turns if len(turns) > 1 else (),
            logprob=whole.logprob,
            token_logprobs=whole.token_logprobs,
            token_ids=whole.token_ids,
        )


def _whole(parts: Sequence[Completion], text: str, finish_reason: FinishReason, stop: str | None = None) -> Completion:
    """Turns of a chain, or parts of a turn, as one: counts and log-probabilities add up, tokens follow each other."""
    logprobs = [part.logprob for part in parts if part.logprob is not None]
    return Completion(
        text,
        finish_reason,
        num_prompt_tokens=sum(part.num_prompt_tokens for part in parts),
        num_tokens=sum(part.num_tokens for part in parts),
        stop=stop,
        logprob=sum(logprobs) if len(logprobs) == len(parts) else None,
        token_logprobs=tuple(itertools.chain.from_iterable(part.token_logprobs for part in parts)),
        token_ids=tuple(itertools.chain.from_iterable(part.token_ids for part in parts)),
    )


def turn_seed(request: Request, turn: int, part: int = 0) -> int:
    """Seed of one turn of one chain, or of a later part of it.

    The first draw has the request's own, so that a calculator changes nothing before it is used. All others are hashed:
    siblings' own seeds are neighbours, so that one added to a seed is the seed of another chain.
    """
    if turn == part == 0:
        return request.seed
    places = [request.prompt_hash, request.index, turn, *([part] if part else [])]
    return int(hashlib.sha256("/".join(map(str, places)).encode()).hexdigest()[:8], 16)


async def roll_out(
    engines: Sequence[Completer], request: Request, distribution: SamplingDistribution, rollout: Rollout
) -> Chain | None:
    """One chain by the rules of `rollout`; `engines` in the order of its roles. None where an engine has nothing."""
    if rollout.iterative is None:
        return await single_turn(engines[0], request, distribution, rollout.calculator)
    roles = dict(zip(rollout.iterative.roles, engines, strict=True))
    return await in_turns(roles, request, distribution, rollout.iterative, rollout.calculator)


async def single_turn(
    engine: Completer, request: Request, distribution: SamplingDistribution, calculates: bool = False
) -> Chain | None:
    """Ask once."""
    talk = _Talk(request, distribution)
    text = await talk.turn(engine, "all", json.loads(request.prompt), calculates)
    return None if text is None else talk.chain(text, talk.turns[0].finish_reason)


async def in_turns(
    engines: Mapping[Role, Completer],
    request: Request,
    distribution: SamplingDistribution,
    settings: Iterative,
    calculates: bool,
) -> Chain | None:
    """Ask and solve in turns; the text is the unified layout, its answer what the last solution says."""
    talk = _Talk(request, distribution)
    body, told = socratic.parts_of_first(json.loads(request.prompt), settings)
    if settings.predicts_hints:
        told = await talk.turn(engines["hint"], "hint", socratic.hint_prompt(body), calculates=False)
        if told is None:
            return None
        told = " ".join(told.split())
    done: list[Step] = []
    planned: list[str] | None = None
    while not talk.is_cut_off:
        if planned is None or settings.questions == "interleaved":
            prompt = socratic.ask_prompt(body, settings, told, done)
            asked = await talk.turn(engines["ask"], "ask", prompt, calculates=False)
            if asked is None:
                return None
            planned = [line.strip() for line in asked.splitlines() if line.strip()]
        if talk.is_cut_off or not planned or planned[0] == socratic.NO_MORE:
            break
        if len(done) == settings.max_steps:
            return talk.chain(_text(done), "length")
        question = planned.pop(0)
        prompt = socratic.solve_prompt(body, done, question)
        solution = await talk.turn(engines["solve"], "solve", prompt, calculates)
        if solution is None:
            return None
        done.append(Step(question, " ".join(solution.split())))
        if not planned and settings.questions == "at_once":
            break
    return talk.chain(_text(done), "length" if talk.is_cut_off else "stop")


def _text(done: Sequence[Step]) -> str:
    return socratic.text_of(done, socratic.answer_of(done[-1].solution)) if done else ""


async def _calculating(
    engine: Completer, prompt: str | Messages, request: Request, distribution: SamplingDistribution, turn: int
) -> Completion | None:
    """Let the model write up to each `>>`, put the right value before it if it ends an annotation, and let it go on.

    The parts are one turn: its budget is shared, its counts are sums. What the model is shown again counts as prompt.
    A value may have more tokens than the one that it stands for: where the rest then does not fit, the turn is cut off.
    Its tokens are those that the model wrote, a value that was replaced among them, and not those of the right one.
    """
    if not isinstance(prompt, str):
        raise ValueError("calculator: expected a model that is asked without a chat template, got messages")
    stops = distribution.model_copy(update={"stop": (*distribution.stop, calculator.END)})
    text, num_tokens, parts = "", 0, list[Completion]()
    for part in range(MAX_CALCULATIONS):
        seed, budget = turn_seed(request, turn, part), request.max_new_tokens - num_tokens
        try:
            completion = await engine.complete(prompt + text, replace(request, seed=seed, max_new_tokens=budget), stops)
        except PromptTooLongError:
            if part == 0:
                raise
            break
        if completion is None:
            return None
        parts.append(completion)
        text += completion.text
        num_tokens += completion.num_tokens
        if completion.stop != calculator.END:
            return _whole(parts, text, completion.finish_reason, completion.stop)
        # A `>>` that closes nothing (`if 5 >> 2`), or what cannot be computed, stays as the model wrote it.
        text = calculator.complete(text) or text + calculator.END
        if num_tokens >= request.max_new_tokens:
            break
    return _whole(parts, text, "length")
