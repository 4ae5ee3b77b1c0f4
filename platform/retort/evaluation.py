"""Evaluation: sample a model on test problems, verify, vote, count. The same engines and the same verification.

Rows in: `Verdict`. Rows out: `Prediction`, one a problem and decode, and `Score`, one a task, thought and decode.

    {"task": "arithmetic", "thought": "cot", "decode": "maj@8", "problems": 200, "accuracy": 0.615, "low": 0.546,
     "high": 0.68, "pass_at_k": 0.84, "no_answer": 0.02, "mean_tokens": 41.3, …}
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retort import questions
from retort.asking import Asked
from retort.combining import Tolerance, combine_all, parse, vote
from retort.engines import hf, vllm
from retort.engines.interface import SamplingDistribution
from retort.intervals import pass_at_k, wilson
from retort.questions import QuestionScore
from retort.records import Prediction, Problem, Verdict
from retort.sampling import Model, plan
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.hashing import digest
from retort.store.plan import Plan
from retort.thoughts import THOUGHTS, socratic

logger = logging.getLogger(__name__)
VERSION = 2
LIBRARIES = ("sacrebleu", "wordllama")
"""What compares sub-questions."""
DECODE = re.compile(r"greedy|maj@([1-9][0-9]*)")


class EngineSettings(vllm.Config):
    """Settings of the engine that samples students; the model is the student's checkpoint, whatever stands here."""

    model: str = "shipped:student"


class HfSettings(hf.Config):
    """The same for the engine `hf`."""

    model: str = "shipped:student"


class EvaluationConfig(BaseModel):
    """What is measured, on which problems, and how students are sampled."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ()
    """Tasks whose problems every student answers."""
    split: Literal["test", "dev"] = "test"
    """Which of their problems: `dev` to choose among settings, so that the test problems are still unseen then."""
    references: dict[str, tuple[str, ...]] = {}
    """Tasks that others answer too, for comparison: `{ tiny = ["arithmetic"], base = ["arithmetic"] }`. A key is a
    teacher's id, or `base` for the students before training."""
    decodes: tuple[str, ...] = Field(default=("greedy",), min_length=1)
    """`greedy`, or `maj@k` for a majority vote over k samples."""
    combine: tuple[str, ...] = ()
    """Combiners over the thoughts of one student, from the same chains: `fallback:pot,eot,cot` (ETD's order),
    `majority:cot,pot,eot`, `weighted:…` (by accuracy on dev problems), `oracle:…` (an upper bound)."""
    temperature: float = Field(default=0.7, gt=0, le=10)
    """Temperature of the samples that vote (0.7 in SCoTD)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Token budget of a student's chain."""
    engine: EngineSettings = EngineSettings()
    """How students are served by vLLM."""
    hf: HfSettings = HfSettings()
    """How students are served by transformers: encoder-decoder ones, and those with `engine = "hf"`."""

    @field_validator("decodes")
    @classmethod
    def _known(cls, decodes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(decodes)) < len(decodes):
            raise ValueError(f"{list(decodes)!r} names one twice; expected each once")
        for decode in decodes:
            if not DECODE.fullmatch(decode):
                raise ValueError(f"unknown decode {decode!r}; expected 'greedy' or 'maj@k' with k ≥ 1")
        return decodes

    @field_validator("combine")
    @classmethod
    def _readable(cls, combiners: tuple[str, ...]) -> tuple[str, ...]:
        written = tuple(parse(combiner).text for combiner in combiners)
        if len(set(written)) < len(written):
            raise ValueError(f"{list(combiners)!r} names one twice; expected each once")
        return written

    @property
    def needs_dev(self) -> bool:
        """Whether students are also asked dev problems, for the weights of a combiner."""
        return any(parse(combiner).rule == "weighted" for combiner in self.combine)


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one model on one task under one thought (or combiner) and decode, with Wilson's 95% interval.

    `pass_at_k` is None for a combiner, whose chains are of several kinds. `no_answer` is the share of problems without
    any answer (a program that fails, a system that is not solved); `right_steps` of `steps` calculator annotations were
    right.
    """

    task: str
    thought: str
    decode: str
    problems: int
    correct: int
    accuracy: float
    low: float
    high: float
    pass_at_k: float | None
    no_answer: float
    truncated: float
    mean_tokens: float
    chains: int
    steps: int
    right_steps: int


def num_votes(decode: str) -> int:
    """k of `maj@k`; 1 for `greedy`."""
    match = DECODE.fullmatch(decode)
    assert match is not None
    return int(match[1]) if match[1] else 1


def predict(verdicts: Iterable[Verdict], decode: str, tolerance: Tolerance) -> list[Prediction]:
    """One prediction a problem and thought, from its first chains by index."""
    groups: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.problem_id, verdict.thought].append(verdict)
    predictions: list[Prediction] = []
    for key in sorted(groups):
        chains = sorted(groups[key], key=lambda verdict: verdict.index)[: num_votes(decode)]
        answer = vote([chain.answer for chain in chains], tolerance)
        # Equal texts have equal verdicts: any chain with the winning answer carries its own.
        winner = next((chain for chain in chains if chain.answer == answer), chains[0])
        predictions.append(
            Prediction(
                problem_id=winner.problem_id,
                task=winner.task,
                thought=winner.thought,
                decode=decode,
                question=winner.question,
                gold=winner.gold,
                answer=answer,
                is_correct=None if winner.gold is None else answer is not None and bool(winner.is_correct),
                num_chains=len(chains),
                num_correct=sum(chain.is_correct is True for chain in chains),
                num_tokens=sum(chain.num_tokens for chain in chains),
            )
        )
    return predictions


def score(predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> Score:
    """The score of predictions that share task, thought and decode, over the problems that have a gold answer.

    A problem whose chains a recording lacks has no prediction and does not count; the verdicts' `lacking` tells of it.
    """
    labelled = [prediction for prediction in predictions if prediction.is_correct is not None]
    correct = sum(bool(prediction.is_correct) for prediction in labelled)
    low, high = wilson(correct, len(labelled))
    chains = max(1, len(verdicts))
    votes = num_votes(predictions[0].decode)
    chances = [pass_at_k(p.num_chains, p.num_correct, min(votes, p.num_chains)) for p in labelled]
    return Score(
        task=predictions[0].task,
        thought=predictions[0].thought,
        decode=predictions[0].decode,
        problems=len(labelled),
        correct=correct,
        accuracy=correct / max(1, len(labelled)),
        low=low,
        high=high,
        pass_at_k=sum(chances) / max(1, len(chances)) if predictions[0].thought in THOUGHTS else None,
        no_answer=sum(prediction.answer is None for prediction in predictions) / len(predictions),
        truncated=sum(verdict.reason == "truncated" for verdict in verdicts) / chains,
        mean_tokens=sum(verdict.num_tokens for verdict in verdicts) / chains,
        chains=len(verdicts),
        steps=sum(verdict.num_steps for verdict in verdicts),
        right_steps=sum(verdict.num_right_steps for verdict in verdicts),
    )


def decide(
    verdicts: Sequence[Verdict],
    decode: str,
    combiners: Sequence[str],
    weights: Mapping[str, float],
    tolerance: Tolerance,
) -> tuple[list[Prediction], list[Score]]:
    """Predictions of one decode, of each thought and of each combiner whose thoughts were asked, and their scores."""
    made = predict(verdicts, decode, tolerance)
    thoughts = {verdict.thought for verdict in verdicts}
    parts = {thought: {thought} for thought in thoughts}
    for text in combiners:
        combiner = parse(text)
        # Teachers and bases are asked no dev problems, and so have no weights.
        is_weighed = combiner.rule != "weighted" or weights.keys() >= set(combiner.thoughts)
        if thoughts >= set(combiner.thoughts) and is_weighed:
            parts[text] = set(combiner.thoughts)
            made += combine_all(combiner, [p for p in made if p.thought in combiner.thoughts], weights, tolerance)
    scores: list[Score] = []
    for task, thought in sorted({(prediction.task, prediction.thought) for prediction in made}):
        chosen = [p for p in made if (p.task, p.thought) == (task, thought)]
        chains = [v for v in verdicts if v.task == task and v.thought in parts[thought] and v.index < num_votes(decode)]
        scores.append(score(chosen, chains))
    return made, scores


def plans(
    model: Model,
    store: Store,
    problems: Sequence[Problem],
    dev_problems: Sequence[Problem],
    thoughts: Sequence[str],
    decodes: Sequence[str],
    distribution: SamplingDistribution,
    max_new_tokens: int,
    asked: Asked,
) -> dict[str, tuple[Plan, SamplingDistribution]]:
    """What must be sampled: one greedy chain (`greedy`; `dev` on dev problems), and as many samples as the largest vote
    needs (`maj`)."""
    greedy = distribution.model_copy(update={"temperature": 0.0})
    most = max((num_votes(decode) for decode in decodes if decode != "greedy"), default=0)
    wanted = (
        ("greedy", problems, greedy, int("greedy" in decodes)),
        ("maj", problems, distribution, most),
        ("dev", dev_problems, greedy, 1),
    )
    found: dict[str, tuple[Plan, SamplingDistribution]] = {}
    for name, chosen, drawn, chains in wanted:
        if chosen and chains:
            pool = model.pool(store, drawn)
            made = [plan(chosen, thought, pool, chains, max_new_tokens, asked) for thought in thoughts]
            found[name] = Plan(pool, tuple(prompt for one in made for prompt in one.prompts), max_new_tokens), drawn
    return found


def evaluate(
    store: Store,
    verdicts: dict[str, Artifact],
    decodes: Sequence[str],
    combiners: Sequence[str],
    references: Mapping[str, Sequence[str]],
    tolerance: Tolerance,
    label: str,
) -> Artifact:
    """Predictions and scores from the verdicts of `plans`; found, if they were made before.

    `references` holds the gold sub-questions of problems; where a Socratic student was asked some of these, the
    artifact also says how its own questions compare (`questions.jsonl`).
    """
    config = {"decodes": list(decodes), "combine": list(combiners), "tolerance": asdict(tolerance)}
    inputs = {name: artifact.id for name, artifact in verdicts.items()} | {"references": digest(dict(references))}
    where = Address("evaluation", VERSION, config, inputs, LIBRARIES)
    found = find(store, where)
    if found is not None:
        return found
    rows = {name: list(artifact.records(Verdict)) for name, artifact in verdicts.items()}
    weights = _accuracy_by_thought(rows.get("dev", []))
    predictions: list[Prediction] = []
    scores: list[Score] = []
    for decode in decodes:
        made, counted = decide(rows["greedy" if decode == "greedy" else "maj"], decode, combiners, weights, tolerance)
        predictions += made
        scores += counted
    for made in scores:
        logger.info("evaluation %s: %s %s %s %.1f%%", label, made.task, made.thought, made.decode, 100 * made.accuracy)
    asked = [{"task": task, **asdict(made)} for task, made in _question_scores(rows.get("greedy", []), references)]
    writer = Writer(store, where)
    files = [
        writer.put_records("predictions.parquet", Prediction, predictions),
        writer.put_lines("scores.jsonl", [asdict(score) for score in scores]),
        *([writer.put_lines("questions.jsonl", asked)] if asked else []),
    ]
    return writer.commit(files, {"scores": len(scores), "predictions": len(predictions), "weights": weights})


def _accuracy_by_thought(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of right chains by thought, over the problems with a gold answer."""
    judged: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.is_correct is not None:
            judged[verdict.thought].append(verdict.is_correct)
    return {thought: sum(rights) / len(rights) for thought, rights in sorted(judged.items())}


def _question_scores(
    verdicts: Sequence[Verdict], references: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, QuestionScore]]:
    """How the sub-questions of Socratic chains compare to gold ones, a task at a time."""
    known = [v for v in verdicts if v.thought == "socratic" and references.get(v.problem_id)]
    for task in sorted({verdict.task for verdict in known}):
        chosen = [verdict for verdict in known if verdict.task == task]
        asked = [[step.question for step in socratic.steps_of(verdict.text)] for verdict in chosen]
        yield task, questions.score(asked, [references[verdict.problem_id] for verdict in chosen])
