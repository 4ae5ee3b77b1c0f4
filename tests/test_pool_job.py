"""`jobs/pool.py` on the pools of real runs: shown, verified, compacted, taken out and brought in."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recordings import COUNTS, recipe, write_recording
from requested import missing
from retort import prompts
from retort.loading import load
from retort.pipeline import distill
from retort.planning import teacher_plans
from retort.records import Chain, as_row, from_rows, from_table
from retort.run import prepare
from retort.store import open_store
from retort.store.exports import identity_beside
from retort.store.imports import import_files
from retort.store.integrity import verify
from retort.store.plan import Plan, wanted_keys
from retort.store.pool import PARTITIONS, Pool, open_pool, partition_of
from retort.upkeep import pool_commands

ROOT = Path(__file__).parent.parent
NUM_PROMPTS = COUNTS["train"] + COUNTS["dev"]
IDENTITY = {"model": {"model": "m"}, "distribution": {"temperature": 1.0}}


def job(name: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"jobs/{name}.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines_of(*arguments: str | Path) -> list[str]:
    """The lines of a command, in this process: what it says is claimed, and not how it ends."""
    return list(pool_commands(argparse.ArgumentParser(), list(map(str, arguments))))


def told(name: str, *arguments: str | Path, status: int = 0, **environment: str) -> list[str]:
    """The lines that a command printed."""
    done = job(name, *arguments, **environment)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Place:
    """A store that a run has sampled into, and its one pool."""

    path: Path
    plan: Plan

    @property
    def pool(self) -> Pool:
        return self.plan.pool


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A folder with a recipe, and a store that it was sampled into: 48 prompts, 4 chains each."""
    folder = tmp_path_factory.mktemp("sampled")
    path = folder / "recipe.toml"
    path.write_text(recipe(write_recording(folder / "rec.jsonl", 4), str(folder / "store"), 4))
    distill(load(path), open_store(str(folder / "store")), until="sample")
    return folder


@pytest.fixture
def place(sampled: Path, tmp_path: Path) -> Place:
    """A copy of that store."""
    shutil.copytree(sampled / "store", tmp_path / "store")
    wanted = load(sampled / "recipe.toml", [f"store={tmp_path / 'store'}"])
    run = prepare(wanted, open_store(wanted.store))
    ((plan, _),) = teacher_plans(run, wanted.teacher[0], with_references=False).values()
    return Place(tmp_path / "store", plan)


def rows(pool: Pool) -> list[Chain]:
    """Every row of a pool, sorted."""
    tables = (table for partition in PARTITIONS for table in pool.tables(partition))
    return sorted((chain for table in tables for chain in from_table(Chain, table)), key=repr)


def read_by_plan(plan: Plan) -> list[Chain]:
    """What a plan reads of its pool."""
    return [
        chain
        for partition, wanted in plan.partitions.items()
        for chain in plan.pool.chains(partition, wanted_keys(wanted), plan.max_new_tokens)
    ]


def append(pool: Pool, chains: Iterable[Chain]) -> list[str]:
    """Add rows to a pool, a segment each; the keys of their objects."""
    return [pool.append("added", [chain]).key for chain in chains]


def chain_of(text: str, **changed: object) -> Chain:
    prompt = prompts.canonical(f"Question: {text}")
    made = Chain(prompts.prompt_hash(prompt), 0, prompt, text, "stop", 5, 6, 8, 0, "t/train/0", "cot", 1.5)
    return replace(made, **changed)


def grown(pool: Pool, number: int) -> list[Chain]:
    """Rows for the first prompts of a pool, cut off at small budgets, as if they had been there before it grew."""
    firsts = [chain for chain in rows(pool) if chain.index == 0][:number]
    return [
        replace(chain, text=chain.text[:20], finish_reason="length", num_tokens=budget, max_new_tokens=budget)
        for chain in firsts
        for budget in (8, 16)
    ]


# show


def test_a_pool_is_shown_with_what_it_is_of_and_what_it_holds(place: Place) -> None:
    lines = told("pool", "show", place.path)
    assert lines[0] == f"pool {place.pool.id}: {4 * NUM_PROMPTS} chains of {NUM_PROMPTS} prompts, 4 each"
    facts = dict(line.strip().split("  ", 1) for line in lines[1:5])
    assert place.pool.identity["model"]["recording"] in facts["model"]
    assert "temperature = 1.0" in facts["distribution"]
    size = sum(segment.size for partition in PARTITIONS for segment in place.pool.segments(partition))
    assert f"{size / 1e6:.1f} MB; 0 set aside" in facts["in the store"]
    assert lines[-1].split() == ["cot", "arithmetic", "stop", str(4 * NUM_PROMPTS), "0", "0"]


def test_cut_off_replaced_and_imported_rows_and_damaged_segments_are_counted(place: Place) -> None:
    old = grown(place.pool, 3)
    append(place.pool, old)
    append(place.pool, [chain_of("Q", source="mine.jsonl@0123456789ab#1", thought="pot"), chain_of("Q", index=1)])
    broken = Path(place.path, place.pool.segments(partition_of(old[0].prompt_hash))[0].key)
    if broken.name.startswith("added"):
        broken = Path(place.path, place.pool.segments(partition_of(old[0].prompt_hash))[-1].key)
    lines = told("pool", "show", place.path, place.pool.id)
    text = "\n".join(lines)
    assert f"pool {place.pool.id}: {4 * NUM_PROMPTS + 2} chains of {NUM_PROMPTS + 1} prompts, 2 to 4 each" in text
    assert "1 rows of mine.jsonl@0123456789ab" in text
    counted = [line.split() for line in lines if line.strip().startswith(("cot", "pot"))]
    assert ["cot", "arithmetic", "length", "6", "0", str(3 * (8 + 16))] in counted
    assert ["pot", "t", "stop", "1", "5", "6"] in counted
    (replaced,) = (int(line.split()[1]) for line in lines if line.strip().startswith("replaced"))
    hidden = set(rows(place.pool)) - {
        chain for budget in (8, 16, 96) for chain in read_by_plan(replace(place.plan, max_new_tokens=budget))
    }
    assert replaced == len(
        hidden - {chain_of("Q", source="mine.jsonl@0123456789ab#1", thought="pot"), chain_of("Q", index=1)}
    )
    broken.write_bytes(broken.read_bytes()[:-9])
    assert "1 segments that are not counted here" in "\n".join(lines_of("show", place.path))
    assert broken.exists(), "showing a pool changes it"


def test_all_pools_are_listed_before_the_details_of_each(place: Place) -> None:
    other = Pool(place.pool.store, IDENTITY)
    other.describe()
    append(other, [chain_of("Q")])
    lines = told("pool", "show", place.path)
    assert {line.split(":")[0] for line in lines[:2]} == {f"pool {other.id}", f"pool {place.pool.id}"}
    assert lines[2] == ""
    assert sum(line.startswith("pool ") for line in lines) == 4


# verify


def test_a_whole_pool_has_no_problems(place: Place) -> None:
    (line,) = told("pool", "verify", place.path)
    assert f"{4 * NUM_PROMPTS} rows, 0 problems" in line
    append(place.pool, grown(place.pool, 3))
    (line,) = lines_of("verify", place.path, place.pool.id)
    assert f"{4 * NUM_PROMPTS + 6} rows, 0 problems" in line, "rows that replaced others are no problem"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def stray(path: Path) -> None:
    """Into the folder of another partition."""
    other = path.parents[1] / ("b" if path.parent.name == "a" else "a") / path.name
    other.parent.mkdir(exist_ok=True)
    path.rename(other)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "do not match the digest"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "do not match the digest"),
        (lambda path: path.write_bytes(b""), "do not match the digest"),
        (lambda path: path.rename(path.with_name("x-00000.parquet")).write_bytes(b"PAR1"), "not readable as Parquet"),
        (stray, "have another partition than"),
    ],
)
def test_damage_to_a_segment_is_found_and_nothing_is_changed(place: Place, damage: object, said: str) -> None:
    segment = place.path / next(place.pool.segments(partition) for partition in place.plan.partitions)[0].key
    damage(segment)  # type: ignore[operator]
    before = {path: path.stat().st_mtime_ns for path in place.path.rglob("*")}
    problem, counts = verify(place.pool)
    assert said in problem.text
    assert "1 problems" in counts.text
    assert {path: path.stat().st_mtime_ns for path in place.path.rglob("*")} == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": '"Another?"'}, "1 of 1 rows have a key that is not the hash of the prompt"),
        ({"finish_reason": "tired"}, "a finish reason other than stop and length"),
        ({"index": -1}, "an index below 0"),
    ],
)
def test_a_row_that_cannot_have_been_sampled_is_found(place: Place, wrong: dict[str, object], said: str) -> None:
    append(place.pool, [chain_of("Q", **wrong)])
    problem, counts = (finding.text for finding in verify(place.pool))
    assert said in problem
    assert "1 problems" in counts


def test_a_chain_that_was_paid_for_twice_is_found_and_a_copy_is_not_one(place: Place) -> None:
    one = rows(place.pool)[0]
    (copy,) = append(place.pool, [replace(one, finished_at_s=1.0)])
    assert "1 rows are copies" in lines_of("verify", place.path)[-1]
    (other,) = append(place.pool, [replace(one, text="Another.")])
    problems = told("pool", "verify", place.path, status=1)[:-1]
    assert len(problems) == 1
    assert f"chain {one.index} of prompt {one.prompt_hash} was sampled twice" in problems[0]
    assert other in problems[0] or copy in problems[0]


def test_damaged_segments_are_set_aside_on_request_and_exactly_their_chains_are_missing(place: Place) -> None:
    segment = place.path / next(place.pool.segments(partition) for partition in place.plan.partitions)[0].key
    held = {(chain.prompt_hash, chain.index) for chain in rows(place.pool)}
    flip(segment)
    damaged = segment.read_bytes()
    assert "set aside" in "\n".join(told("pool", "verify", place.path, "--set-aside", status=1))
    assert not segment.exists()
    assert Path(str(segment).replace("/segments/", "/damaged/")).read_bytes() == damaged
    left = {(chain.prompt_hash, chain.index) for chain in rows(place.pool)}
    lacking = {(request.prompt_hash, request.index) for request in missing(place.plan)}
    assert lacking == held - left != set()
    assert "0 problems" in told("pool", "verify", place.path)[-1]


# compact


def test_compaction_says_what_it_saved_and_changes_no_row(place: Place) -> None:
    append(place.pool, grown(place.pool, 9))
    before, segments = rows(place.pool), sum(len(place.pool.segments(partition)) for partition in PARTITIONS)
    (line,) = told("pool", "compact", place.path, place.pool.id)
    now = sum(len(place.pool.segments(partition)) for partition in PARTITIONS)
    assert f"{segments} segments" in line.split("before")[0]
    assert f"{now} segments" in line.split("before")[1]
    assert now < segments
    assert rows(place.pool) == before


# export and import

FORMATS = ["parquet", "jsonl", "datasets"]


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_makes_the_same_pool_elsewhere_and_only_once(place: Place, tmp_path: Path, form: str) -> None:
    unread = replace(rows(place.pool)[0], text="Another.", source="mine.jsonl@0123456789ab#4")
    append(place.pool, [*grown(place.pool, 5), unread])
    out, elsewhere = tmp_path / f"out.{form}", tmp_path / "elsewhere"
    (line,) = lines_of("export", place.path, place.pool.id, out, "--format", form)
    copy = replace(place.plan, pool=Pool(open_store(str(elsewhere)), place.pool.identity))
    lines = lines_of("import", elsewhere, out)
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines) == int(line.split(": ")[1].split()[0])
    assert open_pool(copy.pool.store, place.pool.id).identity == place.pool.identity
    for budget in (4, 8, 12, 16, 96, 200):
        one, other = (read_by_plan(replace(plan, max_new_tokens=budget)) for plan in (place.plan, copy))
        assert [as_row(chain) for chain in one] == [as_row(chain) for chain in other] != []
    held = rows(copy.pool)
    assert set(held) < set(rows(place.pool)), "rows that no plan reads were not left out"
    lines_of("import", elsewhere, out)
    assert rows(copy.pool) == held
    assert "0 problems" in lines_of("verify", elsewhere)[-1]


@pytest.mark.parametrize("form", FORMATS)
def test_all_rows_are_exported_on_request(place: Place, tmp_path: Path, form: str) -> None:
    append(place.pool, [replace(rows(place.pool)[0], text=f"Another {number}.") for number in range(3)])
    lines = [
        lines_of("export", place.path, place.pool.id, tmp_path / name, "--format", form, *more)[0]
        for name, more in (("some", []), ("all", ["--all"]))
    ]
    assert f"{4 * NUM_PROMPTS} rows; 3 that no plan reads left out" in lines[0]
    assert f"{4 * NUM_PROMPTS + 3} rows; 0 that no plan reads left out" in lines[1]


def test_an_exported_data_set_is_opened_by_datasets_and_says_what_it_is(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told("pool", "export", place.path, place.pool.id, out, "--format", "datasets")
    program = (
        "import datasets, json, sys; found = datasets.load_dataset(sys.argv[1], split='train');"
        "print(json.dumps([found[0], len(found), next(iter(found.to_iterable_dataset()))['text']]))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], env=environment, capture_output=True, text=True, check=True
    )
    row, count, text = json.loads(done.stdout)
    assert count == 4 * NUM_PROMPTS
    assert row["text"] == text
    assert next(from_rows(Chain, [row])) in rows(place.pool)
    card = (out / "README.md").read_text()
    assert place.pool.identity["model"]["recording"] in card
    assert f"{count} chains" in card


def test_an_import_repeats_nothing_and_puts_nothing_aside(place: Place, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out.jsonl", Pool(open_store(str(tmp_path / "elsewhere")), place.pool.identity)
    lines_of("export", place.path, place.pool.id, out, "--format", "jsonl")
    ours = rows(place.pool)
    elsewhere.describe()
    answered = [replace(chain, text="Sampled here.") for chain in ours[:7]]
    cut = [replace(chain, finish_reason="length", max_new_tokens=8, num_tokens=8) for chain in ours[7:10]]
    append(elsewhere, [*answered, *cut])
    (line,) = told("pool", "import", elsewhere.store.uri, out)
    added = f"{len(ours) - 7} rows added to pool {elsewhere.id}"
    assert line == f"{out}: {added}, 0 there already, 7 left out: other chains have their keys"
    (line,) = told("pool", "import", elsewhere.store.uri, out)
    assert f"0 rows added to pool {elsewhere.id}, {len(ours) - 7} there already, 7 left out" in line
    assert sorted([*answered, *cut, *ours[7:]], key=repr) == rows(elsewhere)


def test_an_export_that_was_killed_can_be_made_again(place: Place, tmp_path: Path) -> None:
    identity_beside(tmp_path / "out.jsonl").write_text("{")  # which is written before its rows get their name
    exported(place, tmp_path, "out.jsonl")
    other = open_store(str(tmp_path / "other"))
    ((_, done),) = import_files(other, [tmp_path / "out.jsonl"])
    assert rows(done.pool) == rows(place.pool)


def test_an_import_that_was_killed_goes_on(place: Place, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    append(place.pool, grown(place.pool, 5))
    lines_of("export", place.path, place.pool.id, out, "--format", "datasets", "--all")
    files = sorted(out.glob("data/*.parquet"))
    lines_of("import", elsewhere, files[3], files[0])
    lines_of("import", elsewhere, out)
    assert {chain.prompt_hash for chain in rows(place.pool)} == {
        chain.prompt_hash for chain in rows(Pool(open_store(str(elsewhere)), place.pool.identity))
    }
    assert len(rows(Pool(open_store(str(elsewhere)), place.pool.identity))) <= len(rows(place.pool))


# wrong input


def test_segments_of_a_pool_that_no_longer_says_what_it_is_are_told(place: Place) -> None:
    place.pool.store.delete(f"{place.pool.prefix}pool.json")
    assert "segments without pool.json" in lines_of("show", place.path)[0]
    done = job("pool", "verify", place.path)
    assert done.returncode == 1
    assert f"pools/{place.pool.id}: segments without pool.json" in done.stdout


def test_a_damaged_description_or_artifact_is_told_by_its_name(place: Place, sampled: Path) -> None:
    store, wanted = place.pool.store, load(sampled / "recipe.toml", [f"store={place.path}"])
    for ends, said in (("problems.parquet", "cannot be read"), ("manifest.json", "is damaged")):
        (key,) = [key for key in store.keys("artifacts/problems/") if key.endswith(ends)]
        store.replace(key, b"{'")
        with pytest.raises(ValueError, match=rf"\A[^\n]*{key} {said}[^\n]*\Z"):
            prepare(wanted, store)
    store.replace(f"{place.pool.prefix}pool.json", b"{'")
    with pytest.raises(ValueError, match=rf"{place.pool.prefix}pool.json is damaged"):
        lines_of("show", place.path)


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(place: Place) -> None:
    command = [sys.executable, "jobs/pool.py", "show", str(place.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()
        assert done.stderr.read() == b""
    assert done.returncode == -signal.SIGPIPE


def exported(place: Place, folder: Path, name: str) -> Path:
    lines_of("export", place.path, place.pool.id, folder / name, "--format", "jsonl")
    return folder / name


def test_exported_rows_that_were_changed_are_refused_with_their_place(place: Place, tmp_path: Path) -> None:
    out = exported(place, tmp_path, "out.jsonl")
    lines = out.read_text().splitlines()
    row = json.loads(lines[4])
    for wrong, said in [
        ({**row, "prompt": '"Another?"'}, "a key that is not the hash of the prompt"),
        ({**row, "more": 1}, "line 5: expected a chain"),
        ({key: value for key, value in row.items() if key != "text"}, "line 5: expected a chain"),
        ({**row, "text": None}, "rows without text"),
        ({**row, "index": "x"}, "cannot be read"),
        (3, "line 5: expected a chain"),
    ]:
        out.write_text("\n".join([*lines[:4], json.dumps(wrong), *lines[5:]]))
        with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as refused:
            lines_of("import", tmp_path / "elsewhere", out)
        assert str(out) in str(refused.value)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "{store}", "0" * 24], "has no pool"),
        (["show", "relative/store"], "no such folder"),
        (["show", "{folder}/rec.jsonl"], "is a file; expected a folder"),
        (["show", "{folder}/none"], "no such folder"),
        (["show", "ftp://x"], "unknown scheme"),
        (["verify", "{store}", "x/y"], "has no pool"),
        (["export", "{store}", "nope", "{folder}/out"], "has no pool"),
        (["export", "{store}", "{pool}", "{folder}/rec.jsonl"], "is there already"),
        (["export", "{store}", "{pool}", "{folder}/none/out"], "No such file"),
        (["export", "{store}", "{empty}", "{folder}/out"], "nothing to export"),
        (["import", "{store}"], "expected STORE FILE…"),
        (["import", "{store}", "{folder}/none.parquet"], "no exported file"),
        (["import", "{store}", "{folder}/rec.jsonl"], "does not say of which pool it is"),
        (["import", "{store}", "{folder}"], "no exported file"),
        (["import", "--recipe", "{folder}/none.toml", "{folder}/rec.jsonl"], "--recipe and --teacher together"),
        (["import", "--recipe", "{folder}/none.toml", "--teacher", "rec", "{folder}/rec.jsonl"], "cannot be read"),
    ],
)
def test_wrong_input_ends_with_status_2_and_one_line(
    place: Place, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "rec.jsonl").write_text('{"question": "Q", "completions": []}\n')
    empty = Pool(place.pool.store, IDENTITY)
    empty.describe()
    names = {"store": place.path, "folder": tmp_path, "pool": place.pool.id, "empty": empty.id}
    with pytest.raises((ValueError, OSError), match=r"\A[^\n]*\Z") as refused:
        lines_of(*(argument.format(**names) for argument in arguments))
    assert said in str(refused.value)
    assert not list(tmp_path.glob(".*partial*"))


def test_wrong_input_ends_with_status_2_and_nothing_but_its_line(place: Place) -> None:
    done = job("pool", "show", place.path, "0" * 24)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"has no pool '{'0' * 24}'; it has {place.pool.id}" in line
