"""Growth, policies and order, counted where it costs: at the engine, in the requests that it is asked."""

import json
import logging
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import counted
from recordings import recipe, write_recording
from retort import pipeline, sampling
from retort.asking import student_asked
from retort.engines import ENGINES, vllm
from retort.engines.interface import SamplingDistribution
from retort.loading import load
from retort.pipeline import ask_teachers, dry_run
from retort.records import Problem
from retort.rollouts import Rollout
from retort.run import prepare
from retort.sampling import Model, Sampled, SamplingConfig, sample
from retort.store import Store
from retort.store.claims import Session
from retort.store.plan import Plan, wanted_keys
from retort.store.pool import PARTITIONS
from retort.tasks import arithmetic
from retort.verification import VerificationConfig, until_correct, verify

pytestmark = pytest.mark.usefixtures("ray_session")

plan = partial(sampling.plan, asked=student_asked(Rollout()))
DISTRIBUTION = SamplingDistribution(temperature=1.0)
CHECKS = VerificationConfig()
JUDGED = {"rows": 10, "logprobs": 7}
RIGHT = (2, 5, 6)
"""Indexes of right chains in every recording."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(ENGINES, "counted", counted)
    return recorded(tmp_path, "rec")


def recorded(folder: Path, name: str, **settings: float | str) -> Model:
    """A recording of twelve chains for each of 40 problems, of which those of `RIGHT` are right."""
    path = folder / f"{name}.jsonl"
    with path.open("w") as file:
        for problem in problems(40):
            texts = [f"The answer is {problem.answer if index in RIGHT else 'blue'}." for index in range(12)]
            for thought in ("cot", "answer"):
                row = {"question": problem.question, "thought": thought, "completions": texts, "name": name}
                file.write(json.dumps(row) + "\n")
    return Model("counted", (counted.Config(paths=(str(path),), log=str(folder / f"{name}.log"), **settings),))  # type: ignore[arg-type]


def problems(count: int) -> list[Problem]:
    return list(arithmetic.load(arithmetic.Config(id="arithmetic", train=count, dev=0, test=0)))


def log_of(model: Model) -> Path:
    (config,) = model.configs
    assert isinstance(config, counted.Config)
    return Path(config.log)


def wanted(model: Model, store: Store, count: int, num_chains: int, thought: str = "cot", budget: int = 96) -> Plan:
    return plan(problems(count), thought, model.pool(store, DISTRIBUTION), num_chains, budget)


def run(
    model: Model, *plans: Plan, max_tokens: int | None = None, flush_s: float = 10.0
) -> tuple[list[Sampled], list[tuple[str, int, str, int]]]:
    """What sampling says, and what it asked of the engine."""
    before = counted.calls(log_of(model))
    pairs = [(each, DISTRIBUTION) for each in plans]

    def left() -> int | None:
        surveys = [each.survey(partition) for each in plans for partition in each.partitions]
        return None if max_tokens is None else max_tokens - sum(survey.num_tokens for survey in surveys)

    done = sample(model, pairs, SamplingConfig(flush_s=flush_s), "rec", CHECKS, left)
    asked = Counter(counted.calls(log_of(model)))
    asked.subtract(before)
    return done, sorted(asked.elements())


def keys(planned: Plan) -> set[tuple[str, int]]:
    return wanted_keys(list(planned.prompts))


def held(planned: Plan) -> dict[tuple[str, int], str]:
    chains = (planned.pool.chains(p, keys(planned), planned.max_new_tokens) for p in PARTITIONS)
    return {(chain.prompt_hash, chain.index): chain.text for part in chains for chain in part}


# Growth


def test_more_chains_ask_for_the_new_ones_alone(model: Model, store: Store) -> None:
    four, eight = wanted(model, store, 20, 4), wanted(model, store, 20, 8)
    _, first = run(model, four)
    assert {(hash_, index) for hash_, index, *_ in first} == keys(four)
    assert len(first) == 80
    ((done,), second) = run(model, eight)
    assert {(hash_, index) for hash_, index, *_ in second} == keys(eight) - keys(four)
    assert len(second) == 80
    assert (done.wanted, done.reused, done.sampled) == (160, 80, 80)
    assert run(model, eight)[1] == [], "all found"
    assert run(model, four)[1] == [], "fewer are a part of more"


def test_more_problems_and_other_thoughts_ask_for_theirs_alone(model: Model, store: Store) -> None:
    run(model, wanted(model, store, 20, 3))
    more, other = wanted(model, store, 30, 3), wanted(model, store, 30, 3, "answer")
    _, asked = run(model, more, other)
    assert Counter(thought for _, _, thought, _ in asked) == {"cot": 30, "answer": 90}


def test_a_larger_budget_asks_only_for_what_was_cut_off_and_keeps_the_old_text(
    store: Store, tmp_path: Path, model: Model
) -> None:
    model = recorded(tmp_path, "long", length=50)
    short, long = wanted(model, store, 20, 6, budget=32), wanted(model, store, 20, 6, budget=64)
    run(model, short)
    cut = {key for key, text in held(short).items() if text == "cut"}
    assert len(cut) == 40, "every third chain"
    _, asked = run(model, long)
    assert {(hash_, index) for hash_, index, *_ in asked} == cut
    assert {budget for *_, budget in asked} == {64}
    assert "cut" not in held(long).values()
    assert {key: text for key, text in held(long).items() if key not in cut} == {
        key: text for key, text in held(short).items() if key not in cut
    }
    assert run(model, short)[1] == [], "the smaller budget knows its answers still"


def test_a_second_teacher_has_a_pool_of_its_own(model: Model, store: Store, tmp_path: Path) -> None:
    run(model, wanted(model, store, 10, 2))
    before = log_of(model).read_text()
    second = recorded(tmp_path, "second")
    (done,), asked = run(second, wanted(second, store, 10, 2))
    assert (done.reused, len(asked)) == (0, 20)
    assert log_of(model).read_text() == before
    assert run(model, wanted(model, store, 10, 2))[1] == []


# Policies


def adaptive(model: Model, store: Store, num_correct: int, num_chains: int = 12) -> Plan:
    pool = model.pool(store, DISTRIBUTION)
    return plan(problems(20), "cot", pool, num_chains, 96, until=until_correct(num_correct, CHECKS))


def test_until_correct_asks_for_the_shortest_prefix_and_counts_what_it_saved(model: Model, store: Store) -> None:
    two = adaptive(model, store, 2)
    (done,), asked = run(model, two)
    assert Counter(index for _, index, *_ in asked) == dict.fromkeys(range(6), 20), "the second right one is chain 5"
    assert (done.wanted, done.sampled, done.accepted, done.unneeded) == (240, 120, 40, 120)
    assert done.saved_tokens == 120 * (done.prompt_tokens + done.output_tokens) // 120
    assert run(model, two)[1] == []
    _, more = run(model, adaptive(model, store, 3))
    assert Counter(index for _, index, *_ in more) == {6: 20}
    ((fixed,), rest) = run(model, wanted(model, store, 20, 12))
    assert (fixed.reused, len(rest)) == (140, 100)


def test_verdicts_of_until_correct_list_the_keys_used_and_do_not_depend_on_a_fuller_pool(
    model: Model, store: Store
) -> None:
    two = adaptive(model, store, 2)
    run(model, two)
    (lean,) = verify(store, [two], "m", CHECKS)
    drawn = [row for file in lean.manifest["files"] if "drawn" in file["name"] for row in lean.lines(file["name"])]
    assert len(drawn) == 20
    assert {row["num_chains"] for row in drawn} == {6}
    assert (lean.stats["rows"], lean.stats["wanted"], lean.stats["reasons"]["correct"]) == (120, 120, 40)
    run(model, wanted(model, store, 20, 12))
    store.delete(f"{lean.prefix}manifest.json")
    (full,) = verify(store, [two], "m", CHECKS)
    assert full.stats["rows_digest"] == lean.stats["rows_digest"]


def test_a_policy_and_a_fixed_number_of_the_same_prompts_share_what_is_bought(model: Model, store: Store) -> None:
    two, fixed = adaptive(model, store, 2), wanted(model, store, 30, 4)
    (until, count), asked = run(model, two, fixed)
    assert len(asked) == len({(hash_, index) for hash_, index, *_ in asked}) == 30 * 4 + 20 * 2
    assert (until.sampled, count.sampled) == (40, 120)
    assert (until.reused, until.unneeded) == (80, 120)
    verify(store, [two, fixed], "m", CHECKS)


def test_a_policy_waits_for_another_driver_that_holds_its_partitions(model: Model, store: Store) -> None:
    two, other = adaptive(model, store, 2), wanted(model, store, 20, 2, "answer")
    held = Session(store)
    assert held.claim(two.pool, two.partitions) == set(two.partitions)
    member = held.join(None)
    only = [partition for partition in other.partitions if partition not in two.partitions]
    assert only, "partitions in which the policy wants nothing are sampled first"

    def release() -> None:
        time.sleep(4)
        held.release(two.pool, two.partitions)
        member.close()

    releasing = threading.Thread(target=release)
    releasing.start()
    (until, _), _ = run(model, two, other)
    releasing.join()
    assert (until.sampled, until.accepted) == (120, 40)


def test_what_one_actor_leaves_over_the_others_may_spend(store: Store, tmp_path: Path, model: Model) -> None:
    model = recorded(tmp_path, "two", actors=2, slow_problem=problems(1)[0].id, slow_s=3.0)
    all_ = wanted(model, store, 8, 12)
    # 96 chains of 8 tokens at most, and one that is open counts as its prompt's bytes and its budget.
    most = 96 + max(len(prompt.prompt.encode()) for prompt in all_.prompts)
    (done,), asked = run(model, all_, max_tokens=96 * 8 + 2 * most)
    assert (done.sampled, done.withheld, len(asked)) == (96, 0, 96)


@pytest.mark.slow
@pytest.mark.parametrize("flush_s", [0.5, 10.0])
def test_what_may_be_spent_holds_over_the_death_of_an_actor(
    store: Store, tmp_path: Path, model: Model, flush_s: float
) -> None:
    model = recorded(tmp_path, "dying", dies_at=250, seconds=0.2)
    all_ = wanted(model, store, 40, 12)
    (done,), asked = run(model, all_, max_tokens=2400, flush_s=flush_s)
    spent = sum(all_.survey(partition).num_tokens for partition in all_.partitions)
    most = 96 + max(len(prompt.prompt.encode()) for prompt in all_.prompts)
    assert 2400 - most < spent <= 2400, "3040 are wanted"
    assert (done.prompt_tokens + done.output_tokens, done.withheld) == (spent, 480 - done.sampled)
    assert len(asked) > done.sampled, "nothing was open when the actor died"


def test_a_dry_run_after_a_policy_has_ended_asks_for_nothing_more(model: Model, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(write_recording(tmp_path / "r.jsonl", 8), "/unused", 8))
    wanted = load(file, ["teacher.rec.policy=until_correct", "teacher.rec.num_correct=1"])
    before = "\n".join(dry_run(wanted, store))
    assert ("384 missing" in before, "(fewer where 1 are correct)" in before) == (True, True)
    ask_teachers(prepare(wanted, store), with_references=True)
    *_, last = after = dry_run(wanted, store)
    assert "teacher rec, cot: 48 problems, all that is wanted is sampled and verified" in after
    assert last == "estimate: at most about 0 teacher tokens"


def test_log_probabilities_that_chains_have_not_are_told(
    model: Model, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, pipeline.__name__):
        pipeline._tell_lacks(Model("x", (vllm.Config(model="shipped:teacher"),)), "t", {"lacking": 0}, JUDGED)
        assert caplog.text == ""
        settings = vllm.Config(model="shipped:teacher", logprobs="sum")
        pipeline._tell_lacks(Model("x", (settings,)), "t", {"lacking": 0}, JUDGED)
    assert "sampling t: 3 of 10 chains were sampled before without log-probabilities" in caplog.text


def test_a_problem_that_is_never_solved_gets_all_its_chains(model: Model, store: Store) -> None:
    four = adaptive(model, store, 4)
    (done,), asked = run(model, four)
    assert (len(asked), done.unneeded) == (240, 0)
    (verdicts,) = verify(store, [four], "m", CHECKS)
    assert (verdicts.stats["rows"], verdicts.stats["lacking"]) == (240, 0)


def test_tokens_are_bought_up_to_the_limit_and_the_rest_is_asked_for_later(model: Model, store: Store) -> None:
    all_ = wanted(model, store, 30, 4)
    (done,), asked = run(model, all_, max_tokens=600)
    assert done.sampled == len(asked) > 0
    assert done.withheld == 120 - done.sampled > 0
    assert 300 < done.prompt_tokens + done.output_tokens <= 600
    (rest,), again = run(model, all_)
    assert (rest.reused, len(again)) == (done.sampled, done.withheld)


def test_a_recipe_stops_at_its_limit_with_one_line_and_goes_on_with_a_higher_one(
    model: Model, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(write_recording(tmp_path / "r.jsonl", 4), "/unused", 4))
    limit = ["teacher.rec.engine=counted", f"teacher.rec.log={tmp_path / 'r.log'}", "sampling.max_tokens_total=600"]
    with pytest.raises(ValueError, match=r"max_tokens_total = 600 leaves too little for \d+ chains") as told:
        ask_teachers(prepare(load(file, limit), store), with_references=False)
    assert "\n" not in str(told.value)
    bought = len(counted.calls(tmp_path / "r.log"))
    assert 0 < bought < 192
    with pytest.raises(ValueError, match="max_tokens_total"):
        ask_teachers(prepare(load(file, limit), store), with_references=False)
    assert len(counted.calls(tmp_path / "r.log")) - bought <= 20, "what it may cost counts across restarts"
    done = prepare(load(file, [*limit[:2], "sampling.max_tokens_total=1000000"]), store)
    ask_teachers(done, with_references=False)
    assert len(counted.calls(tmp_path / "r.log")) == 192
    assert done.artifacts["verdicts"]["rec/cot"].stats["rows"] == 192


def test_tokens_of_chains_that_several_corpora_look_at_count_once(model: Model, store: Store, tmp_path: Path) -> None:
    nested = '[[corpus]]\nid = "few"\ntasks = ["arithmetic"]\nteachers = ["rec"]\nthoughts = ["cot"]'
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(write_recording(tmp_path / "r.jsonl", 4), "/unused", 4, few=nested))
    counts = ["corpus.few.selection.num_chains=2", "teacher.rec.engine=counted", f"teacher.rec.log={tmp_path / 'log'}"]
    run = prepare(load(file, counts), store)
    ask_teachers(run, with_references=False)
    sampled = [made.stats for made in run.artifacts["sampling"].values()]
    bought = sum(stats["prompt_tokens"] + stats["output_tokens"] for stats in sampled)
    assert (len(sampled), sum(stats["sampled"] for stats in sampled), bought > 0) == (2, 192, True)
    limited = load(file, [*counts, "sampling.max_tokens_total=1000000"])
    assert dry_run(limited, store)[-1].endswith(f"; max_tokens_total = 1000000 leaves {1_000_000 - bought}")


def test_a_pilot_asks_the_first_problems_and_stops_where_too_few_are_right(
    model: Model, store: Store, tmp_path: Path
) -> None:
    file, log = tmp_path / "recipe.toml", tmp_path / "r.log"
    file.write_text(recipe(write_recording(tmp_path / "r.jsonl", 4, wrong_share=0.5), "/unused", 4))
    settings = ["teacher.rec.engine=counted", f"teacher.rec.log={log}", "sampling.pilot.problems=10"]
    with pytest.raises(ValueError, match=r"of 40 chains on the first 10 problems accepted, expected at least 90"):
        ask_teachers(prepare(load(file, [*settings, "sampling.pilot.min_accepted=0.9"]), store), with_references=False)
    assert len(counted.calls(log)) == 40
    ask_teachers(prepare(load(file, [*settings, "sampling.pilot.min_accepted=0.2"]), store), with_references=False)
    assert len(counted.calls(log)) == 192, "the pilot's chains are a part of the whole"


# Order and the end of a job


@pytest.mark.slow
def test_actors_that_have_nothing_left_are_released_while_the_tail_runs(
    store: Store, tmp_path: Path, model: Model
) -> None:
    slow = problems(40)[17].id
    # Each chain takes long enough for an actor that starts late to find some left.
    model = recorded(tmp_path, "slow", actors=2, seconds=6.0, slow_problem=slow, slow_s=24.0)
    members: list[tuple[float, int]] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.2):
            members.append((time.monotonic(), len(store.keys("sessions/"))))

    watch = threading.Thread(target=look)
    watch.start()
    (done,), asked = run(model, wanted(model, store, 40, 4))
    ended = time.monotonic()
    is_over.set()
    watch.join()
    assert (done.sampled, len(asked)) == (160, 160)
    assert max(count for _, count in members) == 3, "a driver and two actors"
    late = [count for at, count in members if ended - 5 < at < ended - 1]
    assert late
    assert set(late) == {2}, "one actor works on the tail"
    deadline = time.monotonic() + 20
    while store.keys("sessions/"):
        assert time.monotonic() < deadline, "an actor did not leave its session"
        time.sleep(0.2)


def test_a_job_that_finishes_nothing_for_long_is_not_ended(store: Store, tmp_path: Path, model: Model) -> None:
    from ray.data import DataContext

    model = recorded(tmp_path, "slow", seconds=6.0)
    DataContext.get_current().execution_no_progress_timeout_s = 2
    (done,), _ = run(model, wanted(model, store, 1, 1))
    assert done.sampled == 1


def test_what_another_driver_holds_is_waited_for_and_then_found(model: Model, store: Store) -> None:
    both = wanted(model, store, 10, 2)
    other = Session(store)
    member = other.join(None)
    assert other.claim(both.pool, PARTITIONS) == set(PARTITIONS)
    done: list[Sampled] = []
    waiting = threading.Thread(target=lambda: done.extend(run(model, both)[0]))
    waiting.start()
    time.sleep(3)
    assert counted.calls(log_of(model)) == []
    assert waiting.is_alive()
    other.release(both.pool, PARTITIONS)
    member.close()
    waiting.join(60)
    assert done[0].sampled == 20
