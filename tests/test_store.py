"""The store: objects are whole or absent and written once; artifacts exist when their manifest does."""

import json
import os
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
import pyarrow.parquet as pq
import pytest

from retort.engines import models
from retort.records import Example
from retort.store import Store, address, check_uri, fetch, open_store
from retort.store.artifacts import Address, Writer, find, library_version, open_artifact, parquet_bytes

ADDRESS = Address("corpus", 1, {"rule": "correct"}, {"verdicts": ["abc"]}, ("pyarrow",))
EXAMPLES = [Example(f"t/train/{number}", "train", "cot", 0, "Q\n", f"The answer is {number}.") for number in range(6)]

PUT_EACH = """
import sys
from retort.store import open_store
uri, name = sys.argv[1:]
store = open_store(uri)
print("ready", flush=True)
for line in sys.stdin:
    print(store.put(line.strip(), name.encode()), flush=True)
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


def tell(process: subprocess.Popen[str], line: str):
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def store(store_uri: str) -> Store:
    """On every kind of storage."""
    return open_store(store_uri)


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
    assert store.keys("p/b/1") == ["p/b/1"]
    assert sorted(path.name for path in Path(store.directory("p/b/")).iterdir()) == ["1", "2"]


def test_a_listing_says_how_large_and_how_old_objects_are(store: Store):
    before = time.time()
    for key, size in (("a", 0), ("b", 7), ("c/d", 3)):
        store.put(key, b"x" * size)
    listed = store.objects("")
    assert [(found.key, found.size) for found in listed] == [("a", 0), ("b", 7), ("c/d", 3)]
    assert all(before - 2 < found.modified_at_s < time.time() + 2 for found in listed)


def test_an_object_can_be_replaced_and_deleted(store: Store):
    store.replace("sign", b"one")
    store.replace("sign", b"two")
    assert store.get("sign") == b"two"
    store.delete("sign")
    store.delete("sign")
    assert not store.exists("sign")
    assert store.keys("") == []
    assert store.put("sign", b"three"), "a deleted key can be written again"


def test_an_object_can_be_moved(store: Store, tmp_path: Path):
    store.put("a/b", b"moved")
    store.put("c/d", b"in its place")
    if store.is_local:
        os.utime(tmp_path / "store" / "a/b", (0, 0))
    store.move("a/b", "c/d")
    (found,) = store.objects("")
    assert (found.key, store.get("c/d")) == ("c/d", b"moved")
    assert found.modified_at_s > time.time() - 60, "its age begins anew"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            store.move("a/b", "c/d")
    assert store.get("c/d") == b"moved"
    store.move("c/d", "new/folder/e")
    assert store.keys("") == ["new/folder/e"]


@pytest.mark.parametrize("size", [0, 1000, (16 << 20) + 1, (40 << 20) + 3])
def test_a_file_of_any_size_is_stored_and_fetched_whole(store: Store, tmp_path: Path, size: int):
    file = tmp_path / "file"
    file.write_bytes(random.Random(size).randbytes(size))
    store.put_file("checkpoint/file", file)
    assert store.objects("checkpoint/")[0].size == size
    assert (
        Path(store.directory("checkpoint/"), "file").read_bytes() == file.read_bytes() == store.get("checkpoint/file")
    )


def test_columns_are_read_from_an_open_object(store: Store):
    table = pa.table({"a": [1, 2, 3], "b": ["x" * 1000] * 3})
    store.put("table", parquet_bytes(table))
    with store.open("table") as file:
        assert pq.read_table(file, columns=["a"]).equals(table.select(["a"]))
        assert file.seek(4) == 4
        assert file.read(2) == store.get("table")[4:6]
    with pytest.raises(FileNotFoundError):
        store.open("nothing")


def test_a_store_travels_to_other_processes(store: Store):
    store.put("a", b"here")
    again: Store = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert (again.get("a"), again.uri) == (b"here", store.uri)
    assert open_store(store.uri).get("a") == b"here"


def test_the_first_of_writers_at_once_wins_every_object(store: Store):
    names, keys = ("one", "two", "three"), [f"objects/{number:02}" for number in range(40)]
    writers = {name: start(PUT_EACH, store.uri, name) for name in names}
    assert all(answer(writer) == "ready" for writer in writers.values())
    rng, winners = random.Random(0), list[str]()
    for key in keys:
        for name in rng.sample(names, len(names)):
            tell(writers[name], key)
        (winner,) = [name for name, writer in writers.items() if answer(writer) == "True"]
        winners.append(winner)
    for writer in writers.values():
        writer.communicate()
    assert [store.get(key).decode() for key in keys] == winners
    assert set(winners) == set(names), "a writer never came first: nothing was tested"
    assert store.keys("objects/") == keys


def test_a_killed_writer_leaves_no_partial_object_in_s3(s3_uri: str):
    rng, unfinished = random.Random(0), 0
    for attempt in range(5):
        store = open_store(s3_uri.replace("?", f"/{attempt}?"))
        writer = start(PUT_LARGE, store.uri)
        assert [answer(writer) for _ in range(2)] == ["0", "1"]
        time.sleep(rng.uniform(0, 0.04))
        writer.kill()
        begun = 2 + len(writer.communicate()[0].splitlines())
        found = store.objects("objects/")
        assert begun - 1 <= len(found) <= begun, "an object that was written is gone, or one came from nowhere"
        assert {object_.size for object_ in found} == {len(LARGE)}
        assert store.get(found[-1].key) == LARGE
        unfinished += len(found) < begun
    assert unfinished, "no writer was killed while it wrote"


def test_a_killed_writer_leaves_no_partial_object(tmp_path: Path):
    rng = random.Random(0)
    halves = objects = 0
    for attempt in range(12):
        root = tmp_path / str(attempt)
        writer = start(PUT_LARGE, str(root))
        assert [answer(writer) for _ in range(1 + attempt % 3)] == ["0", "1", "2"][: 1 + attempt % 3]
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
        ("s3:/bucket/store", "absolute"),
    ],
)
def test_a_relative_or_unknown_store_is_refused(uri: str, said: str):
    for refuse in (open_store, check_uri, fetch):
        with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
            refuse(uri)
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
        "format": 1,
        "stage": "corpus",
        "version": 1,
        "config": {"rule": "correct"},
        "inputs": {"verdicts": ["abc"]},
        "libraries": {"pyarrow": pa.__version__},
        "files": [{"name": "scores.jsonl", "key": f"{ADDRESS.prefix}{writer.attempt}/scores.jsonl", "size": 17}],
        "stats": {"rows": 1},
        "attempt": writer.attempt,
    }
    assert before - 0.01 <= created <= time.time() + 0.01
    assert 0 <= seconds <= 60
    found = find(store, ADDRESS)
    assert found is not None
    assert found.read("scores.jsonl") == b'{"a":"\xc3\xa4","b":1}\n'
    assert found.lines("scores.jsonl") == [{"a": "ä", "b": 1}]
    assert found.prefix == f"artifacts/corpus/{found.id}/"


def test_two_attempts_at_once_make_one_artifact(store: Store):
    for round_ in range(10 if store.is_local else 3):
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


def test_a_location_leads_to_the_files_of_an_artifact_from_elsewhere(store: Store):
    writer = Writer(store, ADDRESS)
    made = writer.commit([writer.put("config.json", b"{}")], {})
    program = "import sys; from retort.engines import models; print(models.locate(sys.argv[1]))"
    found = start(program, made.location).communicate()[0].strip()
    assert Path(found, "config.json").read_bytes() == b"{}"
    assert models.locate(made.location) == found
    assert store.is_local == (made.location == found)
    assert ("?endpoint=" in made.uri) == (not store.is_local), "a URI that is printed can be used elsewhere"
    with pytest.raises(ValueError, match=r"expected a directory with a config\.json"):
        models.locate(address(store, "artifacts/none/"))


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
def test_another_address_is_another_artifact(other: Address, tmp_path: Path):
    store = open_store(str(tmp_path))
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
        library_version.cache_clear()
        prefixes.add(replace(ADDRESS, libraries=("toylib",)).prefix)
    assert len(prefixes) == 2
