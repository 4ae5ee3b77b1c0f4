"""Sampling: what is wanted is sampled once, durable in time, and grows without buying anything twice."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from recordings import recipe, write_recording
from retort import rollouts, sampling
from retort.asking import student_asked
from retort.engines import replay
from retort.engines.interface import SamplingDistribution
from retort.loading import load
from retort.pipeline import judge
from retort.planning import teacher_plans
from retort.records import Chain, Problem
from retort.rollouts import Rollout
from retort.run import prepare
from retort.sampling import Model, SamplingConfig, sample
from retort.sampling.drawing import Order
from retort.sampling.ordering import order, phases
from retort.store import Store
from retort.store.hashing import digest
from retort.store.plan import Plan, PlannedPrompt, request_of, wanted_keys
from retort.store.pool import PARTITIONS, Pool, partition_of
from retort.tasks import arithmetic
from retort.thoughts.socratic import Iterative
from retort.verification import VerificationConfig, until_correct, verify

plan = partial(sampling.plan, asked=student_asked(Rollout()))

DISTRIBUTION = SamplingDistribution(temperature=1.0)


def problems(count: int) -> list[Problem]:
    return list(arithmetic.load(arithmetic.Config(id="arithmetic", train=count, dev=0, test=0)))


def keys(wanted: Plan) -> set[tuple[str, int]]:
    return wanted_keys(list(wanted.prompts))


def keys_of(order: Order) -> set[tuple[str, int]]:
    return {(order.prompts[0].prompt_hash, index) for index in order.indexes}


def everywhere(wanted: Plan) -> set[tuple[str, str]]:
    return {(wanted.pool.id, partition) for partition in PARTITIONS}


def chain_of(prompt: PlannedPrompt, index: int, max_new_tokens: int) -> Chain:
    asked = request_of(prompt, index, max_new_tokens)
    return Chain(
        prompt_hash=asked.prompt_hash,
        index=index,
        prompt=asked.prompt,
        text="The answer is 3.",
        finish_reason="stop",
        num_prompt_tokens=5,
        num_tokens=6,
        max_new_tokens=max_new_tokens,
        seed=asked.seed,
        problem_id=asked.problem_id,
        thought=asked.thought,
        finished_at_s=1.5,
    )


def in_pool(wanted: Plan) -> int:
    return sum(len(wanted.pool.chains(partition, keys(wanted), wanted.max_new_tokens)) for partition in PARTITIONS)


def test_batches_hold_every_chain_once_and_never_cross_a_partition(store: Store) -> None:
    wanted = plan(problems(300), "cot", Pool(store, {}), 7, 16)
    ordered = order({0: wanted}, everywhere(wanted), VerificationConfig(), actors=2)
    ordered_keys = [keys_of(order) for batch in ordered.batches for order in batch.orders]
    assert sum(map(len, ordered_keys)) == ordered.num_missing == 2100
    assert set().union(*ordered_keys) == keys(wanted)
    # 2100 chains over 2 actors and 8 batches each; a prompt is not torn.
    assert {sum(len(order.indexes) for order in batch.orders) for batch in ordered.batches} <= set(range(7, 134, 7))
    assert max(sum(len(order.indexes) for order in batch.orders) for batch in ordered.batches) == 133
    for batch in ordered.batches:
        assert len({partition_of(order.prompts[0].prompt_hash) for order in batch.orders}) == 1


def test_prompts_that_cost_most_are_sampled_first(store: Store) -> None:
    asked = problems(40)
    lengths = {problem.id: number for number, problem in enumerate(asked)}
    known = [replace(problem, steps=("x" * (400 + 40 * lengths[problem.id]),)) for problem in asked]
    wanted = plan(known, "cot", Pool(store, {}), 4, 16)
    costs = [batch.cost for batch in order({0: wanted}, everywhere(wanted), VerificationConfig(), actors=1).batches]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) > 8
    # What the pool knows is better than a guess: here, the last shall be first.
    first = known[0]
    (prompt,) = [prompt for prompt in wanted.prompts if prompt.problem.id == first.id]
    wanted.pool.append("b", [replace(chain_of(prompt, 0, 16), num_tokens=9000)])
    batch = order({0: wanted}, everywhere(wanted), VerificationConfig(), actors=1).batches[0]
    assert batch.cost == 9000
    assert batch.orders[0].prompts[0].problem.id == first.id


def test_plans_of_one_session_that_want_the_same_chains_order_them_once(store: Store) -> None:
    pool = Pool(store, {})
    one, two = plan(problems(20), "cot", pool, 2, 16), plan(problems(30), "cot", pool, 4, 16)
    assert phases([one, two]) == [[0, 1]]
    ordered = order({0: one, 1: two}, everywhere(one) | everywhere(two), VerificationConfig(), actors=1)
    assert ordered.num_missing == 120
    assert ordered.reused == {0: 0, 1: 40}
    assert (ordered.num_wanted, ordered.num_reused) == (120, 0), "chains that both want are one"
    pool.append("b", [chain_of(one.prompts[0], 0, 16)])
    ordered = order({0: one, 1: two}, everywhere(one) | everywhere(two), VerificationConfig(), actors=1)
    assert (ordered.num_wanted, ordered.num_reused, ordered.num_missing) == (120, 1, 119)


def test_a_policy_that_wants_what_others_want_comes_after_them(store: Store) -> None:
    pool, until = Pool(store, {}), until_correct(2, VerificationConfig())
    one, other = plan(problems(20), "cot", pool, 2, 16), plan(problems(30), "answer", pool, 4, 16, until=until)
    policy = plan(problems(5), "cot", pool, 4, 16, until=until)
    assert phases([other, one]) == [[0, 1]]
    assert phases([policy, one, other]) == [[1, 2], [0]]


def test_raising_n_samples_exactly_the_new_chains(store: Store, ray_session: None, tmp_path: Path) -> None:
    config = replay.Config(paths=(str(write_recording(tmp_path / "rec.jsonl", 8)),))
    model = Model("replay", (config,))
    pool = model.pool(store, DISTRIBUTION)
    asked = problems(30)
    four = plan(asked, "cot", pool, 4, 96)
    eight = plan(asked, "cot", pool, 8, 96)
    (first,) = sample(model, [(four, DISTRIBUTION)], SamplingConfig(), "rec", VerificationConfig())
    before = {(c.prompt_hash, c.index): c for p in PARTITIONS for c in pool.chains(p, keys(four), 96)}
    (second,) = sample(model, [(eight, DISTRIBUTION)], SamplingConfig(), "rec", VerificationConfig())
    after = {(c.prompt_hash, c.index): c for p in PARTITIONS for c in pool.chains(p, keys(eight), 96)}
    assert (first.sampled, first.reused) == (120, 0)
    assert (second.sampled, second.reused) == (120, 120)
    assert len(after) == 240
    assert all(after[key] == chain for key, chain in before.items())
    assert {chain.index for chain in after.values()} == set(range(8))


def test_what_a_recording_lacks_is_counted_and_the_rest_is_kept(
    store: Store, ray_session: None, tmp_path: Path
) -> None:
    asked = problems(3)
    rows = [{"question": problem.question, "completions": ["The answer is 1."]} for problem in asked[:2]]
    path = tmp_path / "rec.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    model = Model("replay", (replay.Config(paths=(str(path),)),))
    wanted = plan(asked, "cot", model.pool(store, DISTRIBUTION), 2, 96)
    (done,) = sample(model, [(wanted, DISTRIBUTION)], SamplingConfig(), "rec", VerificationConfig())
    assert (done.wanted, done.sampled, done.lacking) == (6, 2, 4)
    assert in_pool(wanted) == 2


def test_batches_are_handed_out_without_a_task_of_their_own(store: Store, ray_session: None, tmp_path: Path) -> None:
    """A task after each would start a worker on every core of a cluster before the first engine is asked."""
    model = Model("replay", (replay.Config(paths=(str(write_recording(tmp_path / "rec.jsonl", 2)),)),))
    wanted = plan(problems(40), "cot", model.pool(store, DISTRIBUTION), 2, 96)
    batches = order({0: wanted}, everywhere(wanted), VerificationConfig(), actors=1).batches
    before = tasks()
    sample(model, [(wanted, DISTRIBUTION)], SamplingConfig(), "rec", VerificationConfig())
    deadline = time.monotonic() + 30
    while (tasks() - before)[ANSWER] < len(batches) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.5)  # every process tells of its tasks once a second
    new = tasks() - before
    assert new[ANSWER] == len(batches) > 8
    assert [name for name in new if "." not in name] == [], "tasks that are no method of an actor"


ANSWER = "task::MapWorker(MapBatches(SampleBatches)).submit"


def tasks() -> Counter[str]:
    """How often each task has run so far; those of an actor have its name and a dot before theirs."""
    import ray

    return Counter(event["cat"] for event in ray.timeline() or () if event["cat"].startswith("task::"))


def test_a_plan_that_is_already_sampled_starts_nothing(store: Store) -> None:
    wanted = plan(problems(1), "cot", Pool(store, {"model": "any"}), 2, 16)
    wanted.pool.append("b", [chain_of(wanted.prompts[0], index, 16) for index in range(2)])
    began = time.monotonic()
    # No Ray is up for this pool's engine, and the model does not exist: asking it would fail.
    (done,) = sample(
        Model("nothing", (replay.Config.model_construct(),)),
        [(wanted, DISTRIBUTION)],
        SamplingConfig(),
        "x",
        VerificationConfig(),
    )
    assert (done.reused, done.sampled) == (2, 0)
    assert time.monotonic() - began < 5


def test_chains_that_vanish_from_the_pool_are_sampled_anew_and_never_just_missing(
    store: Store, ray_session: None, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 2), "/unused", 2))
    run = prepare(load(path), store)
    teacher = run.recipe.teacher[0]
    plans = teacher_plans(run, teacher, with_references=False)
    ((wanted, distribution),) = plans.values()
    (first,) = sample(teacher.model, [(wanted, distribution)], SamplingConfig(), "rec", VerificationConfig())
    lost = Path(store.directory(store.keys(f"{wanted.pool.prefix}segments/")[0]))
    lost.unlink()
    with pytest.raises(ValueError, match="no longer in pool"):
        verify(store, [wanted], "rec", run.recipe.verification)
    judge(run, teacher.model, plans, "rec")
    stats = run.artifacts["verdicts"]["rec/cot"].stats
    assert (stats["rows"], stats["lacking"]) == (first.wanted, 0)


def test_a_rollout_is_part_of_its_pools_identity_and_a_plain_one_is_not() -> None:
    config = replay.Config.model_construct(paths=())
    plain = Model("replay", (config,)).identity()
    assert plain == config.identity() == Model("replay", (config,), Rollout()).identity()
    others = [
        Rollout(calculator=True),
        Rollout(iterative=Iterative()),
        Rollout(iterative=Iterative(questions="interleaved")),
        Rollout(iterative=Iterative(guidance="equations")),
    ]
    made = [Model("replay", (config, config), rollout).identity() for rollout in others]
    assert len({digest(identity) for identity in [plain, *made]}) == 5
    assert all(identity["rollout"]["version"] == rollouts.VERSION for identity in made)


@pytest.mark.slow
def test_an_engine_gets_the_gpu_that_ray_has(tmp_path: Path) -> None:
    """Ray hands out GPUs by number, whether a machine has them or not."""
    script = tmp_path / "job.py"
    script.write_text(ON_A_GPU)
    ran = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split() == ["12", "12"]


ON_A_GPU = """
import sys
import ray
from retort.engines import hf
from retort.engines.interface import SamplingDistribution
from retort.prompts import render
from retort.sampling import Model, SamplingConfig, plan, sample
from retort.store import open_store
from retort.tasks import arithmetic
from retort.thoughts import cues
from retort.verification import VerificationConfig

ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False)
model = Model("hf", (hf.Config(model="shipped:student", dtype="float32"),))
assert model.configs[0].num_gpus(has_gpus=True) == 1
warm = SamplingDistribution(temperature=1.0)
problems = arithmetic.load(arithmetic.Config(id="arithmetic", train=6, dev=0, test=0))
wanted = plan(problems, "cot", model.pool(open_store(sys.argv[1]), warm), 2, 8, lambda each, _: render(each, cues.COT))
(done,) = sample(model, [(wanted, warm)], SamplingConfig(), "tiny", VerificationConfig())
print(done.wanted, done.sampled)
"""
