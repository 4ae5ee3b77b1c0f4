"""The store: objects are whole or absent and written once; artifacts exist when their manifest does."""

import json
import pickle
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest

from retort.records import Example
from retort.store import Store, open_store
from retort.store.artifacts import Address, Writer, find, open_artifact

ADDRESS = Address("corpus", 1, {"rule": "correct"}, {"verdicts": ["abc"]}, ("pyarrow",))
EXAMPLES = [Example(f"t/train/{number}", "train", "cot", 0, "Q\n", f"The answer is {number}.") for number in range(6)]

PUT_MANY = """
import sys, time
from pathlib import Path
from retort.store import open_store
root, name = sys.argv[1:]
store = open_store(root)
print("ready", flush=True)
while not Path(root, "go").exists():
    time.sleep(0.001)
print(*[number for number in range(150) if store.put(f"objects/{number}", name.encode())])
"""

LARGE = bytes(range(256)) * (32 << 10)
PUT_LARGE = """
import sys
from retort.store import open_store
store = open_store(sys.argv[1])
data = bytes(range(256)) * (32 << 10)
for number in range(1000):
    print(number, flush=True)
    assert store.put(f"objects/{number}", data)
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


# Objects


def test_an_object_is_written_once(store: Store):
    assert not store.exists("a/b")
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    assert store.put("a/b", b"first") is True
    assert store.put("a/b", b"second") is False
    assert store.get("a/b") == b"first"
    assert store.exists("a/b")
    assert not store.exists("a")


def test_listings_are_sorted_whole_keys_below_a_prefix(store: Store):
    for key in ("p/b/2", "p/a", "p/b/1", "pp/x", "q"):
        store.put(key, b"")
    assert store.keys("p/") == ["p/a", "p/b/1", "p/b/2"]
    assert store.keys("p/b/") == ["p/b/1", "p/b/2"]
    assert store.keys("nothing/") == []
    assert sorted(path.name for path in Path(store.directory("p/b/")).iterdir()) == ["1", "2"]


def test_a_store_travels_to_other_processes(store: Store):
    store.put("a", b"here")
    again: Store = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert (again.get("a"), again.uri) == (b"here", store.uri)
    assert open_store(store.uri).get("a") == b"here"


def test_the_first_of_writers_at_once_wins_every_object(tmp_path: Path):
    names = ("one", "two", "three")
    writers = [start(PUT_MANY, str(tmp_path), name) for name in names]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    won = {name: set(writer.communicate()[0].split()) for name, writer in zip(names, writers, strict=True)}
    store = open_store(str(tmp_path))
    assert sum(map(len, won.values())) == 150
    assert sum(bool(numbers) for numbers in won.values()) > 1, "one writer was alone: nothing was tested"
    assert {number: store.get(f"objects/{number}").decode() for number in map(str, range(150))} == {
        number: name for name, numbers in won.items() for number in numbers
    }
    assert len(store.keys("objects/")) == 150


def test_a_killed_writer_leaves_no_partial_object(tmp_path: Path):
    rng = random.Random(0)
    halves = objects = 0
    for attempt in range(12):
        root = tmp_path / str(attempt)
        writer = start(PUT_LARGE, str(root))
        assert writer.stdout is not None
        for number in range(1 + attempt % 3):
            assert writer.stdout.readline() == f"{number}\n"
        time.sleep(rng.uniform(0, 0.04))
        writer.kill()
        begun = 1 + attempt % 3 + len(writer.communicate()[0].splitlines())
        store = open_store(str(root))
        keys = store.keys("objects/")
        temporary = [path for path in root.rglob("*") if path.is_file() and path.name.startswith(".tmp-")]
        assert begun - 1 <= len(keys) <= begun, "an object that was written is gone, or one came from nowhere"
        assert all(store.get(key) == LARGE for key in keys)
        halves += any(path.stat().st_nlink == 1 for path in temporary)
        objects += len(keys)
        if begun > len(keys):
            assert store.put(f"objects/{begun - 1}", LARGE), "what was half written cannot be written again"
        shutil.rmtree(root)
    assert halves, "no writer was killed while it wrote"
    assert objects, "every writer was killed before its first object"


def test_listings_pass_over_temporary_files(tmp_path: Path):
    store = open_store(str(tmp_path))
    store.put("a/b", b"")
    (tmp_path / "a" / ".tmp-0123").write_bytes(b"half")
    assert store.keys("a/") == ["a/b"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("data/store", "absolute"),
        ("file://data/store", "absolute"),
        ("", "absolute"),
        ("~/store", "absolute"),
        ("s4://bucket/store", "unknown scheme 's4'"),
        ("http://host/store", "unknown scheme 'http'"),
    ],
)
def test_a_relative_or_unknown_store_is_refused(uri: str, said: str):
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        open_store(uri)
    assert repr(uri) in str(refused.value)
    assert said in str(refused.value)


# Artifacts


def test_an_artifact_is_not_found_before_its_manifest(store: Store):
    writer = Writer(store, ADDRESS)
    file = writer.put_records("part-0.parquet", Example, EXAMPLES)
    assert find(store, ADDRESS) is None
    assert open_artifact(store, ADDRESS.prefix) is None
    made = writer.commit([file], {"rows": 6})
    found = find(store, ADDRESS)
    assert found is not None
    assert (found.uri, found.manifest) == (made.uri, made.manifest)
    assert list(found.records(Example)) == EXAMPLES


def test_the_manifest_says_what_decided_the_output_and_what_it_is(store: Store):
    writer = Writer(store, ADDRESS)
    before = time.time()
    file = writer.put_lines("scores.jsonl", [{"b": 1, "a": "ä"}])
    writer.commit([file], {"rows": 1})
    manifest = json.loads(store.get(f"{ADDRESS.prefix}manifest.json"))
    created, seconds = manifest.pop("created_at_s"), manifest.pop("seconds")
    assert manifest == {
        "stage": "corpus",
        "version": 1,
        "config": {"rule": "correct"},
        "inputs": {"verdicts": ["abc"]},
        "libraries": {"pyarrow": pa.__version__},
        "files": [{"name": "scores.jsonl", "key": f"{ADDRESS.prefix}{writer.attempt}/scores.jsonl", "size": 17}],
        "stats": {"rows": 1},
    }
    assert before - 0.01 <= created <= time.time() + 0.01
    assert 0 <= seconds <= 60
    found = find(store, ADDRESS)
    assert found is not None
    assert found.read("scores.jsonl") == b'{"a":"\xc3\xa4","b":1}\n'
    assert found.lines("scores.jsonl") == [{"a": "ä", "b": 1}]
    assert found.prefix == f"artifacts/corpus/{found.id}/"


def test_two_attempts_at_once_make_one_artifact(store: Store):
    for round_ in range(10):
        address = replace(ADDRESS, version=round_)
        barrier = Barrier(3)

        def attempt(number: int, address: Address = address, barrier: Barrier = barrier) -> tuple[str, list[Example]]:
            writer = Writer(store, address)
            file = writer.put_records("part.parquet", Example, EXAMPLES[number:])
            barrier.wait()
            artifact = writer.commit([file], {"attempt": number})
            return json.dumps(artifact.manifest), list(artifact.records(Example))

        with ThreadPoolExecutor(3) as threads:
            made = list(threads.map(attempt, range(3)))
        assert made[0] == made[1] == made[2]
        manifest, rows = made[0]
        assert rows == EXAMPLES[json.loads(manifest)["stats"]["attempt"] :]
        assert len(store.keys(address.prefix)) == 4, "three attempts and one manifest"


def test_a_reader_sees_the_files_of_one_attempt_only(store: Store, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"weights")
    Writer(store, ADDRESS).put("half.bin", b"of an attempt that died")
    writer = Writer(store, ADDRESS)
    made = writer.commit(writer.put_directory(folder), {})
    assert {path.name: path.read_bytes() for path in Path(made.directory()).iterdir()} == {
        "config.json": b"{}",
        "model.bin": b"weights",
    }
    with pytest.raises(FileNotFoundError, match=r"half\.bin.*config\.json"):
        made.read("half.bin")


def test_a_part_that_was_not_committed_stays_outside(store: Store):
    writer = Writer(store, ADDRESS)
    kept = [writer.put_records(name, Example, rows) for name, rows in (("b", EXAMPLES[:2]), ("a", EXAMPLES[2:]))]
    named = [replace(file, name=f"{file.name}.parquet") for file in kept]
    writer.put_records("c.parquet", Example, EXAMPLES)
    assert list(writer.commit(named, {}).records(Example)) == [*EXAMPLES[2:], *EXAMPLES[:2]], "in the order of names"


def test_a_retried_part_keeps_its_first_data(store: Store):
    writer: Writer = pickle.loads(pickle.dumps(Writer(store, ADDRESS)))  # noqa: S301
    assert writer.put("part", b"rows").key == writer.put("part", b"ROWS").key
    assert writer.commit([writer.put("part", b"ROWS")], {}).read("part") == b"rows"


@pytest.mark.parametrize(
    "other",
    [
        replace(ADDRESS, stage="verdicts"),
        replace(ADDRESS, version=2),
        replace(ADDRESS, config={"rule": "all"}),
        replace(ADDRESS, config={"rule": "correct", "more": None}),
        replace(ADDRESS, inputs={"verdicts": ["abd"]}),
        replace(ADDRESS, libraries=("pyarrow", "pydantic")),
        replace(ADDRESS, libraries=()),
    ],
)
def test_another_address_is_another_artifact(other: Address, store: Store):
    Writer(store, ADDRESS).commit([], {})
    assert other.prefix != ADDRESS.prefix
    assert find(store, other) is None
    assert find(store, ADDRESS) is not None


def test_the_order_of_settings_and_libraries_does_not_matter():
    one = Address("s", 1, {"a": 1, "b": 2}, {"c": 3, "d": 4}, ("pyarrow", "pydantic"))
    assert one.prefix == Address("s", 1, {"b": 2, "a": 1}, {"d": 4, "c": 3}, ("pydantic", "pyarrow")).prefix


def test_another_version_of_a_library_is_another_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    metadata = tmp_path / "toylib.dist-info" / "METADATA"
    metadata.parent.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    prefixes: set[str] = set()
    for version in ("1.0", "1.1", "1.0"):
        metadata.write_text(f"Metadata-Version: 2.1\nName: toylib\nVersion: {version}\n")
        prefixes.add(replace(ADDRESS, libraries=("toylib",)).prefix)
    assert len(prefixes) == 2
