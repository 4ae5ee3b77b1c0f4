"""Chains owned from elsewhere: they count as sampled, under the prompts that the recipe would ask, once."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recordings import COUNTS, recipe, write_recording
from requested import missing as lacking
from retort.config import Recipe
from retort.importing import Asked, Imported, Prompts, import_owned
from retort.loading import load
from retort.pipeline import distill
from retort.planning import teacher_plans
from retort.prompts import prompt_hash
from retort.records import Chain, Problem
from retort.run import prepare
from retort.store import Store, open_store
from retort.store.claims import Session
from retort.store.imports import alone_in
from retort.store.plan import Plan, PlannedPrompt, wanted_keys
from retort.store.pool import PARTITIONS, Pool
from retort.tasks import arithmetic
from test_pool_job import lines_of, rows, told

NUM_PROMPTS = COUNTS["train"] + COUNTS["dev"]
PROBLEMS = list(arithmetic.load(arithmetic.Config.model_validate({"id": "arithmetic", **COUNTS})))
TRAIN = [problem for problem in PROBLEMS if problem.split == "train"]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe that wants 4 chains of each of 48 prompts, of a recording that has them all."""
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 12), str(tmp_path / "store"), 4))
    return path


def write(path: Path, *written: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return path


def plan_of(wanted: Recipe) -> Plan:
    run = prepare(wanted, open_store(wanted.store))
    ((plan, _),) = teacher_plans(run, wanted.teacher[0], with_references=False).values()
    return plan


def take(recipe_file: Path, *files: Path, overrides: tuple[str, ...] = ()) -> list[Imported]:
    """Import files for the recipe's teacher."""
    wanted = load(recipe_file, overrides)
    return [done for _, done in import_owned(wanted, open_store(wanted.store), "rec", [str(file) for file in files])]


def held(recipe_file: Path, problem_id: str) -> list[Chain]:
    """What the pool has of one problem, by index."""
    found = [chain for chain in rows(plan_of(load(recipe_file)).pool) if chain.problem_id == problem_id]
    return sorted(found, key=lambda chain: (chain.index, chain.max_new_tokens))


def missing(recipe_file: Path, *overrides: str) -> Counter[str]:
    """Chains that are left to sample, by problem."""
    return Counter(request.problem_id for request in lacking(plan_of(load(recipe_file, overrides))))


def test_a_recipe_finds_what_was_imported_and_samples_exactly_the_rest(
    recipe_file: Path, tmp_path: Path, ray_session: None
) -> None:
    owned = write(
        tmp_path / "owned.jsonl",
        {"question": TRAIN[0].question, "completions": ["Mine 0.", "Mine 1.", "Mine 2.", "Mine 3.", "Mine 4."]},
        {"question": TRAIN[1].question.upper(), "thought": "cot", "completions": "Mine."},
        {"id": TRAIN[2].id, "completions": ["Mine by id."]},
        {"question": TRAIN[1].question, "completions": ["Mine too."]},
    )
    lines = told("pool", "import", "--recipe", recipe_file, "--teacher", "rec", owned)
    plan = plan_of(load(recipe_file))
    assert lines == [f"{owned}: 8 completions: 8 chains added to pool {plan.pool.id}, 0 there already"]
    left = missing(recipe_file)
    assert (left[TRAIN[0].id], left[TRAIN[1].id], left[TRAIN[2].id], left[TRAIN[3].id]) == (0, 2, 3, 4)
    bought = rows(plan.pool)
    index = distill(load(recipe_file), open_store(str(tmp_path / "store")), until="sample")
    (sampling,) = index.manifest["inputs"]["sampling"].values()
    stats = json.loads(plan.pool.store.get(f"{sampling}manifest.json"))["stats"]
    assert (stats["wanted"], stats["reused"], stats["sampled"]) == (4 * NUM_PROMPTS, 7, 4 * NUM_PROMPTS - 7)
    assert [chain for chain in rows(plan.pool) if chain.source] == bought
    read = [
        chain
        for partition, wanted in plan.partitions.items()
        for chain in plan.pool.chains(partition, wanted_keys(wanted), plan.max_new_tokens)
    ]
    assert sum(bool(chain.source) for chain in read) == 7, "the fifth of the first problem waits for a larger plan"
    assert missing(recipe_file, "teacher.rec.num_chains=5")[TRAIN[0].id] == 0
    assert "8 rows of owned.jsonl@" in "\n".join(lines_of("show", tmp_path / "store"))
    assert "0 problems" in lines_of("verify", tmp_path / "store")[-1]


def test_importing_a_file_twice_changes_nothing_under_whatever_name(recipe_file: Path, tmp_path: Path) -> None:
    row = {"question": TRAIN[0].question, "completions": ["Mine.", "Mine.", "Mine."]}
    owned = write(tmp_path / "owned.jsonl", row)
    (first,) = take(recipe_file, owned)
    before = rows(first.pool)
    assert [chain.index for chain in before] == [0, 1, 2], "equal completions are chains of their own"
    again = take(recipe_file, owned, write(tmp_path / "copy.jsonl", row), overrides=("teacher.rec.num_chains=9",))
    assert [(done.added, done.there) for done in (first, *again)] == [(3, 0), (0, 3), (0, 3)]
    assert rows(first.pool) == before
    (other,) = take(recipe_file, write(tmp_path / "other.jsonl", row, row))
    assert (other.added, [chain.index for chain in rows(first.pool)]) == (6, list(range(9)))


def test_an_import_that_was_killed_goes_on_where_it_was(recipe_file: Path, tmp_path: Path) -> None:
    row = {"question": TRAIN[0].question, "completions": [f"Mine {number}." for number in range(4)]}
    more = {"question": TRAIN[1].question, "completions": ["Cut", "Mine"], "finish_reason": ["length", "stop"]}
    owned = write(tmp_path / "owned.jsonl", row, {**more, "max_new_tokens": 8})
    (first,) = take(recipe_file, owned)
    before = {(chain.prompt_hash, chain.index, chain.text) for chain in rows(first.pool)}
    for partition in "0123456789abcdef":
        for segment in first.pool.segments(partition)[:1]:
            first.pool.store.delete(segment.key)  # as if it had not been written yet
    lost = len(before) - len(rows(first.pool))
    (again,) = take(recipe_file, owned)
    assert (again.added, again.there) == (lost, 6 - lost)
    assert {(chain.prompt_hash, chain.index, chain.text) for chain in rows(first.pool)} == before


def test_where_a_chain_came_from_is_kept_and_names_no_directory(recipe_file: Path, tmp_path: Path) -> None:
    owned = write(tmp_path / "owned.jsonl", {"question": TRAIN[0].question, "completions": ["One.", "Two."]})
    (done,) = take(recipe_file, owned)
    sources = [chain.source for chain in held(recipe_file, TRAIN[0].id)]
    assert [source.rpartition("#")[2] for source in sources] == ["1", "2"]
    assert {source.partition("@")[0] for source in sources} == {"owned.jsonl"}
    stored = b"".join(done.pool.store.get(key) for key in done.pool.store.keys(done.pool.prefix))
    assert str(tmp_path).encode() not in stored


def test_what_a_file_says_of_its_completions_is_kept(recipe_file: Path, tmp_path: Path) -> None:
    owned = write(
        tmp_path / "owned.jsonl",
        {
            "question": TRAIN[0].question,
            "completions": ["Ended.", "Cut at 96", "Cut at 8"],
            "finish_reason": ["stop", "length", "length"],
            "num_tokens": [3, None, 8],
            "num_prompt_tokens": 25,
            "max_new_tokens": [200, None, 8],
        },
        {"question": TRAIN[0].question, "completions": "Plain."},
    )
    (done,) = take(recipe_file, owned)
    told = [
        (chain.index, chain.finish_reason, chain.num_prompt_tokens, chain.num_tokens, chain.max_new_tokens)
        for chain in held(recipe_file, TRAIN[0].id)
    ]
    assert told == [(0, "stop", 25, 3, 200), (1, "length", 25, 0, 96), (2, "length", 25, 8, 8), (3, "stop", 0, 0, 96)]
    assert done.added == 4
    left = [request.index for request in lacking(plan_of(load(recipe_file))) if request.problem_id == TRAIN[0].id]
    assert left == [2], "what was cut off below the plan's budget is sampled again"


@pytest.mark.parametrize("name", ["owned.jsonl", "owned.json", "owned.jsonl.gz", "owned.parquet"])
def test_files_of_every_shape_are_read(name: str, recipe_file: Path, tmp_path: Path) -> None:
    written = [
        {"question": problem.question, "completions": ["One.", "Two."], "num_tokens": [1, 2]} for problem in TRAIN[:3]
    ]
    path = tmp_path / name
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(written), path)
        case ".json":
            path.write_text(json.dumps(written))
        case ".gz":
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in written).encode()))
        case _:
            write(path, *written)
    (done,) = take(recipe_file, path)
    assert (done.completions, done.added) == (6, 6)
    assert [chain.num_tokens for chain in held(recipe_file, TRAIN[2].id)] == [1, 2]


def test_a_text_ends_where_the_teacher_would_have_stopped(recipe_file: Path, tmp_path: Path) -> None:
    owned = write(
        tmp_path / "owned.jsonl",
        {
            "question": TRAIN[0].question,
            "completions": ["So 3.\n\nQ: More?", "So 3."],
            "finish_reason": "length",
            "num_tokens": 9,
        },
    )
    (done,) = take(recipe_file, owned, overrides=('teacher.rec.stop=["\\n\\nQ:"]',))
    found = sorted(rows(done.pool), key=lambda chain: chain.index)
    assert [(chain.text, chain.finish_reason, chain.num_tokens) for chain in found] == [
        ("So 3.", "stop", 0),
        ("So 3.", "length", 9),
    ]
    assert "1 cut at a stop string" in str(done)


def test_what_matches_nothing_is_counted_with_its_reason_and_first_place(recipe_file: Path, tmp_path: Path) -> None:
    test_only = next(problem for problem in PROBLEMS if problem.split == "test")
    number = TRAIN[0].id.split("/")[2]
    assert len({problem.question for problem in PROBLEMS if problem.id.endswith(f"/{number}")}) > 1
    owned = write(
        tmp_path / "owned.jsonl",
        {"question": TRAIN[0].question, "completions": ["Mine."]},
        {"question": "Another?", "completions": ["No.", "No."]},
        {"question": test_only.question, "completions": ["Not asked of this teacher."]},
        {"question": TRAIN[0].question, "thought": "pot", "completions": ["ans = 3"]},
        {"id": number, "completions": ["Whose?"]},
    )
    (done,) = take(recipe_file, owned)
    assert (done.completions, done.added) == (6, 1)
    assert list(done.unmatched.values()) == [3, 1, 1]
    for place, reason in [
        ("line 2", "does not ask this question"),
        ("line 4", "does not ask this teacher for 'pot'"),
        ("line 5", "an id of several problems"),
    ]:
        (found,) = (reason_ for reason_ in done.unmatched if reason in reason_)
        assert done.first[found].endswith(place)
        assert found in str(done)


def test_thoughts_are_kept_apart(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text() + '[[corpus]]\nid = "more"\ntasks = ["arithmetic"]\nteachers = ["rec"]\n'
    recipe_file.write_text(text + 'thoughts = ["pot"]\n')
    owned = write(
        tmp_path / "owned.jsonl",
        *({"question": TRAIN[0].question, "thought": thought, "completions": [thought]} for thought in ("cot", "pot")),
    )
    (done,) = take(recipe_file, owned)
    assert {(chain.thought, chain.text) for chain in rows(done.pool)} == {("cot", "cot"), ("pot", "pot")}


def test_every_prompt_that_asks_a_question_is_found_by_it_and_each_problem_by_its_id(store: Store) -> None:
    def asked(problem_id: str, question: str, prompt: str) -> Asked:
        problem = Problem(problem_id, "t", "train", question, "number")
        return Asked(PlannedPrompt(problem, "cot", prompt, prompt_hash(prompt), 1), 8)

    one, two, other = asked("t/train/1", "Q?", '"a"'), asked("u/train/1", "q?", '"b"'), asked("t/train/2", "R?", '"c"')
    prompts = Prompts(Pool(store, {}), [one, two, other])
    assert prompts.find(" q? ", "cot") == [one, two]
    assert prompts.find("t/train/1", "cot") == [one]
    assert prompts.find("1", "cot") == [one, two], "an id of several copies of one question"
    assert prompts.find("2", "cot") == [other]


def test_chains_of_a_pool_that_is_being_sampled_are_not_imported(store: Store) -> None:
    pool = Pool(store, {})
    session = Session(store, lease_s=0.3)
    member = session.join(None)
    assert session.claim(pool, ["a"]) == {"a"}
    with (
        pytest.raises(ValueError, match=r"is being sampled by pid \d+ on [^\n]*; import when that has ended"),
        alone_in(pool, PARTITIONS, lease_s=0.3),
    ):
        pytest.fail("two had one partition")
    session.release(pool, ["a"])
    member.close()
    with alone_in(pool, PARTITIONS, lease_s=0.3):
        assert session.claim(pool, PARTITIONS) == set()
    assert session.claim(pool, PARTITIONS) == set(PARTITIONS)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completions": ["a"]}, "line 2: no field 'question' or 'id'; got ['completions']"),
        ({"question": "q?"}, "line 2: no field 'completions'"),
        ({"question": "q?", "completions": [3]}, "line 2: field 'completions' is [3]; expected a text or a list"),
        (3, "line 2: got 3; expected an object"),
        ({"question": "q?", "completions": ["a"], "finish_reason": "tired"}, "'tired'; expected stop or length"),
        ({"question": "q?", "completions": ["a"], "num_tokens": [1, 2]}, "'num_tokens' has 2 values for 1 completions"),
        ({"question": "q?", "completions": ["a"], "num_tokens": -1}, "-1; expected an integer of at least 0"),
        ({"question": "q?", "completions": ["a"], "num_tokens": True}, "True; expected an integer"),
        ({"question": "q?", "completions": ["a"], "max_new_tokens": 0}, "0; expected an integer of at least 1"),
    ],
)
def test_a_malformed_row_is_refused_before_anything_is_imported(
    row: Any, said: str, recipe_file: Path, tmp_path: Path
) -> None:
    owned = write(tmp_path / "owned.jsonl", {"question": TRAIN[0].question, "completions": ["Mine."]}, row)
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as refused:
        take(recipe_file, owned)
    assert said in str(refused.value)
    assert str(owned) in str(refused.value)
    assert rows(plan_of(load(recipe_file)).pool) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher", "tiny", "{file}"], "has no teacher 'tiny': expected one of rec"),
        (["--teacher", "rec", "{file}.gone"], "no file"),
        (["--teacher", "rec", "{file}", "teacher.rec.num_chain=3"], "did you mean 'num_chains'"),
        (["--teacher", "rec", "teacher.rec.num_chains=3"], "expected a file"),
        (["--teacher", "rec", "{file}", 'corpus.chains.teachers=["other"]'], "no such id 'other'"),
        (["{file}"], "--recipe and --teacher together"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: list[str], said: str, recipe_file: Path, tmp_path: Path) -> None:
    owned = write(tmp_path / "owned.jsonl", {"question": TRAIN[0].question, "completions": ["Mine."]})
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as refused:
        lines_of("import", "--recipe", recipe_file, *(argument.format(file=owned) for argument in arguments))
    assert said in str(refused.value)
