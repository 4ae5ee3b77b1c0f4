"""Verification: every chain gets a verdict, with a reason; none is dropped.

Rows in: the chains of one plan, read from the pool partition by partition. Rows out: `Verdict`, one a chain.

    {"problem_id": "arithmetic/train/00017", "thought": "cot", "index": 3, "text": "27 + 11 = 38. …", "answer": "45",
     "gold": "45", "is_correct": true, "reason": "correct", …}
"""

import importlib.metadata
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from retort import answers, prompts
from retort.judging import CHAINS_AT_ONCE, CHAINS_IN_A_BATCH, judged
from retort.records import Chain, Problem, Verdict
from retort.solvers import calculator
from retort.solvers.zygote import Limits, Sandbox
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find
from retort.store.hashing import digest
from retort.store.plan import Plan, PlannedPrompt, Until, distinct, prefix, row_batches, wanted_keys
from retort.store.pool import rows_digest
from retort.thoughts import THOUGHTS

logger = logging.getLogger(__name__)
VERSION = 3
LIBRARIES = ("sympy", "math-verify", "numpy")
"""What computes within the sandbox, beside Python itself."""
REPORT_EVERY_S = 5.0
ACCEPTED = ("correct", "unlabelled")
"""Reasons of chains that count as accepted while they are sampled: `unlabelled` where there is no gold answer."""

REASONS = ("correct", "wrong", "no_answer", "truncated", "undecided", "unlabelled", "wrong_step")
"""Why a verdict is what it is. `correct`, or `wrong`: another answer than the gold one; `no_answer`; `truncated`: cut
off; `undecided`: an answer that cannot be compared; `unlabelled`: there is no gold answer; `wrong_step`: the answer is
right, but a calculator annotation is not (where steps are checked); or what a program or a system of equations came to
(`solvers.zygote.RUN_REASONS`, `solvers.equations.REASONS`)."""

Work = tuple[Plan, str, Writer]
"""A plan without its prompts, the id of its model, and the writer of its verdicts."""


class VerificationConfig(BaseModel):
    """How answers are found and compared."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    last_number: bool = False
    """Take the last number of a text that marks no answer. Off: it also accepts what only ends in the right number."""
    relative_tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Numbers closer than this, relative to the larger one, are equal."""
    absolute_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Numbers closer than this are equal too; 1e-3 is the rule of the equation-of-thought papers."""
    check_steps: bool = False
    """Do not learn from a right answer with a wrong annotation, `<<12+5=18>>`: its reason is `wrong_step`. It
    stays a right answer, so that no accuracy depends on it."""
    sandbox: Limits = Limits()
    """Bounds of every program and every nonlinear system."""


def judge(
    problem: Problem, thought: str, chain: Chain, max_new_tokens: int, config: VerificationConfig, sandbox: Sandbox
) -> tuple[str, str | None]:
    """The reason and the canonical answer of a chain.

    A chain that was cut off, or of which a turn is longer than the plan's budget, is `truncated` and has no answer,
    even if it happens to hold one: within the budget the model had not ended.
    """
    if chain.finish_reason == "length" or chain.longest_turn > max_new_tokens:
        return "truncated", None
    kind, choices = problem.answer_kind, problem.choices
    read = THOUGHTS[thought].read(chain.text, problem, config.last_number, sandbox)
    if read.value is None:
        assert read.reason is not None
        return read.reason, None
    answer = answers.canonical(kind, read.value, choices=choices)
    if problem.answer is None:
        return ("undecided" if answer is None else "unlabelled"), answer
    equal = answers.compare(
        kind,
        read.value,
        problem.answer,
        relative_tolerance=config.relative_tolerance,
        absolute_tolerance=config.absolute_tolerance,
        choices=choices,
    )
    if equal is None and kind == "number":
        equal = sandbox.same(read.value, problem.answer)
        if equal is False and answers.canonical(kind, problem.answer) is None:
            equal = None  # a gold answer that is no number says nothing of the chain
        # Votes compare canonical answers: the gold one stands for what computer algebra says is equal to it.
        answer = problem.answer if equal else None if equal is None else answers.canonical("text", read.value)
    if not equal:
        return ("undecided" if equal is None else "wrong"), answer
    checked = calculator.check(chain.text)
    is_sound = checked.num_right_steps == checked.num_steps or not config.check_steps
    return ("correct" if is_sound else "wrong_step"), answer


def verdict(
    problem: Problem,
    thought: str,
    chain: Chain,
    max_new_tokens: int,
    model_id: str,
    config: VerificationConfig,
    sandbox: Sandbox,
) -> Verdict:
    """The verdict row of a chain."""
    reason, answer = judge(problem, thought, chain, max_new_tokens, config, sandbox)
    checked = calculator.check(chain.text)
    return Verdict(
        problem_id=problem.id,
        task=problem.task,
        split=problem.split,
        thought=thought,
        index=chain.index,
        question=problem.question,
        prompt=prompts.render(problem, THOUGHTS[thought].CUE),
        gold=problem.answer,
        text=chain.text,
        answer=answer,
        is_correct=None if problem.answer is None else reason in ("correct", "wrong_step"),
        reason=reason,
        num_prompt_tokens=chain.num_prompt_tokens,
        num_tokens=chain.num_tokens,
        model_id=model_id,
        num_steps=checked.num_steps,
        num_right_steps=checked.num_right_steps,
        logprob=chain.logprob,
    )


def drawn(prompts: list[PlannedPrompt], verdicts: Iterable[Verdict], until: Until) -> tuple[dict[str, int], int]:
    """The length of each prompt's `prefix`, by hash, and how many chains those lack that have not enough.

    A chain counts as accepted if it is for every problem that asks its prompt.
    """
    hash_of = _hashes(prompts)
    known: dict[str, dict[int, bool]] = {hash_: {} for hash_ in hash_of.values()}
    for row in verdicts:
        accepted = known[hash_of[row.problem_id, row.thought]]
        accepted[row.index] = accepted.get(row.index, True) and row.reason in ACCEPTED
    lengths: dict[str, int] = {}
    lacking = 0
    for prompt in distinct(prompts):
        length, is_enough = prefix(known[prompt.prompt_hash], until.num_correct)
        lengths[prompt.prompt_hash] = length
        lacking += 0 if is_enough else prompt.num_chains - length
    return lengths, lacking


def verify_partition(
    row: dict[str, Any], sandbox: Sandbox, plans: Sequence[Work], config: VerificationConfig
) -> dict[str, Any]:
    """Read what a share of a partition's prompts wants of the pool, write verdicts as one file of the plan's artifact.

    `{plan, partition, share, prompts}` in; the files, a digest of the rows read, counts of reasons and of chains that
    are `gone` (wanted, and not in the pool) out. Under `until_correct` a second file lists how many of each were used.
    """
    plan, model_id, writer = plans[row["plan"]]
    wanted = [PlannedPrompt.from_row(prompt) for prompt in row["prompts"]]
    keys = wanted_keys(wanted)
    chains = plan.pool.chains(row["partition"], keys, plan.max_new_tokens)
    verdicts = _verdicts(plan, wanted, chains, model_id, config, sandbox)
    lengths, gone = dict[str, int](), len(keys) - len(chains)
    if plan.until is not None:
        lengths, gone = drawn(wanted, verdicts, plan.until)
        hash_of = _hashes(wanted)
        verdicts = [each for each in verdicts if each.index < lengths[hash_of[each.problem_id, each.thought]]]
        chains = [chain for chain in chains if chain.index < lengths[chain.prompt_hash]]
    read = rows_digest(chains)
    # The pool may have grown before a retry: what was read is in the name, so that rows and counts stay together.
    name = f"{row['partition']}{row['share'] or ''}-{read[:8]}"
    files = [writer.put_records(f"part-{name}.parquet", Verdict, verdicts)]
    if lengths:
        files.append(_put_lengths(writer, f"drawn-{name}.jsonl", lengths))
    reasons = Counter(verdict.reason for verdict in verdicts)
    return {
        "plan": row["plan"],
        "files": json.dumps([asdict(file) for file in files]),
        "digest": read,
        "chains": len(chains),
        "gone": gone,
        "reasons": list(reasons),
        "counts": list(reasons.values()),
        "logprobs": sum(verdict.logprob is not None for verdict in verdicts),
        "protected_by": ", ".join(sandbox.layers) if sandbox.is_in_use else "",
    }


def _put_lengths(writer: Writer, name: str, lengths: Mapping[str, int]) -> File:
    lines = [{"prompt_hash": hash_, "num_chains": length} for hash_, length in sorted(lengths.items())]
    return writer.put_lines(name, lines)


def _verdicts(
    plan: Plan,
    wanted: Sequence[PlannedPrompt],
    chains: Sequence[Chain],
    model_id: str,
    config: VerificationConfig,
    sandbox: Sandbox,
) -> list[Verdict]:
    """Verdicts of chains; two problems may ask the same question, and each gets its own of the shared chains."""
    by_hash: dict[str, list[Chain]] = {}
    for chain in chains:
        by_hash.setdefault(chain.prompt_hash, []).append(chain)
    return [
        verdict(prompt.problem, prompt.thought, chain, plan.max_new_tokens, model_id, config, sandbox)
        for prompt in wanted
        for chain in by_hash.get(prompt.prompt_hash, [])
        if chain.index < prompt.num_chains
    ]


def _hashes(prompts: Iterable[PlannedPrompt]) -> dict[tuple[str, str], str]:
    """The hash of the prompt of each problem and thought."""
    return {(prompt.problem.id, prompt.thought): prompt.prompt_hash for prompt in prompts}


def address(plan: Plan, config: VerificationConfig) -> Address:
    """Where the verdicts of a plan lie."""
    problems = digest(
        [[prompt.problem.id, prompt.problem.answer, prompt.problem.answer_kind] for prompt in plan.prompts]
    )
    return Address(
        "verdicts", VERSION, config.model_dump(mode="json"), {**plan.describe(), "problems": problems}, LIBRARIES
    )


def until_correct(num_correct: int, config: VerificationConfig) -> Until:
    """The policy that stops at `num_correct` accepted chains of a prompt, with what decides acceptance."""
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Until(num_correct, {"version": VERSION, "libraries": libraries, **config.model_dump(mode="json")})


def verify(
    store: Store, plans: Sequence[Plan], model_id: str, config: VerificationConfig, not_given: int = 0
) -> list[Artifact]:
    """Verdicts of every chain of each plan of one model, an artifact a plan; those made before are found.

    Raises:
        ValueError: the pool lacks more chains of a plan than the `not_given` ones that the engine could not give.
    """
    addresses = [address(plan, config) for plan in plans]
    found = [find(store, where) for where in addresses]
    if not all(found):
        _verify([plan for plan, done in zip(plans, found, strict=True) if not done], store, model_id, config, not_given)
        found = [find(store, where) for where in addresses]
    return [artifact for artifact in found if artifact is not None]


def _verify(plans: Sequence[Plan], store: Store, model_id: str, config: VerificationConfig, not_given: int) -> None:
    writers = [Writer(store, address(plan, config)) for plan in plans]
    results = _judged(plans, writers, model_id, config)
    for number, (plan, writer) in enumerate(zip(plans, writers, strict=True)):
        parts = [result for result in results if result["plan"] == number]
        gone = sum(part["gone"] for part in parts)
        if gone > not_given and plan.until is not None:
            raise ValueError(
                f"{gone} chains of pool {plan.pool.id} were not drawn: a verdict has changed since (a program near its "
                f"time limit?) or a chain is gone; run again to draw on"
            )
        if gone > not_given:
            raise ValueError(
                f"{gone} sampled chains are no longer in pool {plan.pool.id}: run again to sample them anew"
            )
        stats = _summary(plan, parts)
        thoughts = ", ".join(sorted({prompt.thought for prompt in plan.prompts}))
        told = stats["wanted"], stats["rows"], stats["reasons"]
        logger.info("verification of %s: %d chains wanted, %d verdicts: %s", thoughts, *told)
        writer.commit([File(**file) for part in parts for file in json.loads(part["files"])], stats)


def _judged(
    plans: Sequence[Plan], writers: Sequence[Writer], model_id: str, config: VerificationConfig
) -> list[dict[str, Any]]:
    """What `verify_partition` makes of all shares of the plans' partitions."""
    work = [(plan.without_prompts(), model_id, writer) for plan, writer in zip(plans, writers, strict=True)]
    wanted = [
        [{"plan": number, **share} for share in batch]
        for number, plan in enumerate(plans)
        for batch in row_batches(plan.partitions, CHAINS_IN_A_BATCH, CHAINS_AT_ONCE)
    ]
    results: list[dict[str, Any]] = []
    done, said_at = 0, time.monotonic()
    total = sum(plan.num_wanted for plan in plans)
    for result in judged(wanted, partial(verify_partition, plans=work, config=config), config.sandbox):
        results.append(result)
        done += result["chains"]
        if time.monotonic() - said_at > REPORT_EVERY_S:
            logger.info("verification: %d/%d chains", done, total)
            said_at = time.monotonic()
    return results


def _summary(plan: Plan, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows in, rows out and reasons of a plan, from the results of its partitions."""
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(dict(zip(part["reasons"], part["counts"], strict=True)))
    wanted = sum(prompt.num_chains for prompt in plan.prompts)
    if plan.until is not None:
        wanted = reasons.total() + sum(part["gone"] for part in parts)
    return {
        "wanted": wanted,
        "rows": reasons.total(),
        "lacking": wanted - reasons.total(),
        "reasons": dict(sorted(reasons.items())),
        "logprobs": sum(part["logprobs"] for part in parts),
        "rows_digest": digest(sorted(part["digest"] for part in parts)),
        "sandbox": sorted({part["protected_by"] for part in parts if part["protected_by"]}),
    }
