"""Evaluation: sample a model on test problems, verify, vote, count. The same engines and the same verification.

Rows in: `Verdict`. Rows out: `Prediction`, one a problem and decode, and `Score`, one a task, thought and decode.

    {"task": "arithmetic", "thought": "cot", "decode": "maj@8", "problems": 200, "accuracy": 0.615, "low": 0.546,
     "high": 0.68, "pass_at_k": 0.84, "no_answer": 0.02, "mean_tokens": 41.3, …}
"""

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retort.engines import vllm
from retort.engines.interface import SamplingDistribution
from retort.records import Prediction, Problem, Verdict
from retort.sampling import Model, plan
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.plan import Plan

logger = logging.getLogger(__name__)
VERSION = 1
DECODE = re.compile(r"greedy|maj@([1-9][0-9]*)")


class EngineSettings(vllm.Config):
    """Settings of the engine that samples students; the model is the student's checkpoint, whatever stands here."""

    model: str = "shipped:student"


class EvaluationConfig(BaseModel):
    """What is measured, on which problems, and how students are sampled."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ()
    """Tasks whose test problems every student answers."""
    references: dict[str, tuple[str, ...]] = {}
    """Tasks that others answer too, for comparison: `{ tiny = ["arithmetic"], base = ["arithmetic"] }`. A key is a
    teacher's id, or `base` for the students before training."""
    decodes: tuple[str, ...] = Field(default=("greedy",), min_length=1)
    """`greedy`, or `maj@k` for a majority vote over k samples."""
    temperature: float = Field(default=0.7, gt=0, le=10)
    """Temperature of the samples that vote (0.7 in SCoTD)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Token budget of a student's chain."""
    engine: EngineSettings = EngineSettings()
    """How students are served."""

    @field_validator("decodes")
    @classmethod
    def _known(cls, decodes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(decodes)) < len(decodes):
            raise ValueError(f"{list(decodes)!r} names one twice; expected each once")
        for decode in decodes:
            if not DECODE.fullmatch(decode):
                raise ValueError(f"unknown decode {decode!r}; expected 'greedy' or 'maj@k' with k ≥ 1")
        return decodes


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one model on one task under one thought and decode, with Wilson's 95% interval."""

    task: str
    thought: str
    decode: str
    problems: int
    correct: int
    accuracy: float
    low: float
    high: float
    pass_at_k: float
    no_answer: float
    truncated: float
    mean_tokens: float
    chains: int


def num_votes(decode: str) -> int:
    """k of `maj@k`; 1 for `greedy`."""
    match = DECODE.fullmatch(decode)
    assert match is not None
    return int(match[1]) if match[1] else 1


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), 95% by default.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of k chains is correct, unbiased, from n ≥ k samples (Chen et al. 2021)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def vote(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer; of equally frequent ones the first seen (SCoTD's rule). None where no chain answers."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


def predict(verdicts: Iterable[Verdict], decode: str) -> list[Prediction]:
    """One prediction a problem and thought, from its first chains by index."""
    groups: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.problem_id, verdict.thought].append(verdict)
    predictions: list[Prediction] = []
    for key in sorted(groups):
        chains = sorted(groups[key], key=lambda verdict: verdict.index)[: num_votes(decode)]
        answer = vote([chain.answer for chain in chains])
        # Equal answers have one canonical form, so any chain with the winning answer carries its verdict.
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
    return Score(
        task=predictions[0].task,
        thought=predictions[0].thought,
        decode=predictions[0].decode,
        problems=len(labelled),
        correct=correct,
        accuracy=correct / max(1, len(labelled)),
        low=low,
        high=high,
        pass_at_k=sum(pass_at_k(p.num_chains, p.num_correct, min(votes, p.num_chains)) for p in labelled)
        / max(1, len(labelled)),
        no_answer=sum(prediction.answer is None for prediction in predictions) / len(predictions),
        truncated=sum(verdict.reason == "truncated" for verdict in verdicts) / chains,
        mean_tokens=sum(verdict.num_tokens for verdict in verdicts) / chains,
        chains=len(verdicts),
    )


def plans(
    model: Model,
    store: Store,
    problems: Sequence[Problem],
    thoughts: Sequence[str],
    decodes: Sequence[str],
    distribution: SamplingDistribution,
    max_new_tokens: int,
    chat: bool = False,
) -> dict[str, tuple[Plan, SamplingDistribution]]:
    """What must be sampled: one greedy chain, and as many samples as the largest vote needs; by `greedy` and `maj`."""
    found: dict[str, tuple[Plan, SamplingDistribution]] = {}
    greedy = distribution.model_copy(update={"temperature": 0.0})
    most = max((num_votes(decode) for decode in decodes if decode != "greedy"), default=0)
    for name, drawn, chains in (("greedy", greedy, int("greedy" in decodes)), ("maj", distribution, most)):
        if chains:
            asked = [
                plan(problems, thought, model.pool(store, drawn), chains, max_new_tokens, chat) for thought in thoughts
            ]
            prompts = tuple(prompt for one in asked for prompt in one.prompts)
            found[name] = Plan(asked[0].pool, prompts, max_new_tokens), drawn
    return found


def evaluate(store: Store, verdicts: dict[str, Artifact], decodes: Sequence[str], label: str) -> Artifact:
    """Predictions and scores from the verdicts of `plans`; found, if they were made before."""
    inputs: dict[str, Any] = {name: artifact.id for name, artifact in verdicts.items()}
    where = Address("evaluation", VERSION, {"decodes": list(decodes)}, inputs)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    predictions: list[Prediction] = []
    scores: list[Score] = []
    rows = {name: list(artifact.records(Verdict)) for name, artifact in verdicts.items()}
    for decode in decodes:
        sampled = rows["greedy" if decode == "greedy" else "maj"]
        made = predict(sampled, decode)
        predictions += made
        for task, thought in sorted({(prediction.task, prediction.thought) for prediction in made}):
            chosen = [p for p in made if (p.task, p.thought) == (task, thought)]
            chains = [v for v in sampled if (v.task, v.thought) == (task, thought) and v.index < num_votes(decode)]
            scores.append(score(chosen, chains))
            logger.info("evaluation %s: %s %s %s %.1f%%", label, task, thought, decode, 100 * scores[-1].accuracy)
    files = [
        writer.put_records("predictions.parquet", Prediction, predictions),
        writer.put_lines("scores.jsonl", [asdict(score) for score in scores]),
    ]
    return writer.commit(files, {"scores": len(scores), "predictions": len(predictions)})
