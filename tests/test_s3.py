"""S3 as a store: lost answers, servers that fail and come back, credentials, and stores that must be refused.

The peers are real servers, with one in between that fails as networks and loaded servers do.
"""

import http.server
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from retort.store import Store, connection, open_store, s3
from retort.store.s3 import S3Store, parse, resolve
from s3_servers.faulty import Faulty
from s3_servers.processes import ACCESS_KEY, BUCKET, SECRET_KEY, Server

CANARY = "canary-do-not-tell"
LARGE = random.Random(0).randbytes(2 * s3.PART_BYTES + 5)


@pytest.fixture
def faulty(s3_server: Server) -> Iterator[Faulty]:
    with Faulty(s3_server.endpoint) as made:
        yield made


@pytest.fixture
def store(s3_uri: str, faulty: Faulty) -> Store:
    """A store whose requests go through the faulty server."""
    return through(s3_uri, faulty)


def through(uri: str, faulty: Faulty) -> Store:
    made = open_store(f"{uri.partition('?')[0]}?endpoint={faulty.endpoint}&region=us-east-1")
    faulty.seen.clear()
    return made


def python(program: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# What the URI says, and what the environment adds


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://", "expected s3://bucket/prefix"),
        ("s3:///prefix", "expected s3://bucket/prefix"),
        ("s3://Bucket", "lower-case"),
        ("s3://bucket/a//b", "names between slashes"),
        ("s3://bucket/../b", "names between slashes"),
        ("s3://bucket/a b", "without blanks"),
        ("s3://bucket/a#b", "without blanks, '#'"),
        ("s3://bucket?endpont=http://host", "'endpont'; expected each of ['endpoint', 'region',"),
        ("s3://bucket?region=a&region=b", "repeated setting 'region'"),
        ("s3://bucket?addressing=paths", "addressing='paths'; expected path or virtual"),
        ("s3://bucket?checksums=yes", "checksums='yes'; expected when_required or when_supported"),
        ("s3://bucket?endpoint=host:9000", "expected an endpoint such as http://host:9000"),
        ("s3://bucket?endpoint=http://host:9000/path", "expected an endpoint such as http://host:9000"),
        (f"s3://bucket?endpoint=http://me:{CANARY}@host", "without path, user and password"),
        (f"s3://me:{CANARY}@bucket/prefix", "'s3://bucket/prefix'"),
        (f"s3://bucket?secret_key={CANARY}", "unknown or repeated setting 'secret_key'"),
    ],
)
def test_a_uri_that_says_something_wrong_is_refused_without_its_secrets(uri: str, said: str):
    with pytest.raises(ValueError, match=r"^store [^\n]+\Z") as refused:
        parse(uri)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)


def test_what_the_uri_leaves_out_comes_from_the_environment_or_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def settings(uri: str) -> tuple[str | None, str, str, str]:
        made = resolve(uri).connection
        return made.endpoint, made.region, made.addressing, made.checksums

    with pytest.raises(ValueError, match=r"^store 's3://bucket/x': no region; expected AWS_REGION"):
        resolve("s3://bucket/x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert settings("s3://bucket") == (None, "eu-west-1", "virtual", "when_supported")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert settings("s3://bucket") == (None, "eu-west-2", "virtual", "when_supported")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    assert settings("s3://bucket") == ("http://all:1", "eu-west-2", "path", "when_supported")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:2")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert settings("s3://bucket") == ("http://s3:2", "eu-west-2", "path", "when_required")
    said = "endpoint=https://host:9000&region=x-1&addressing=virtual&checksums=when_supported"
    assert settings(f"s3://bucket?{said}") == ("https://host:9000", "x-1", "virtual", "when_supported")
    assert resolve(f"s3://bucket/a/b/?{said}").uri == f"s3://bucket/a/b?{said}"

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile x]\nregion = eu-north-1\nendpoint_url = http://profile:3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "x")
    assert settings("s3://bucket")[:2] == ("http://profile:3", "eu-north-1")
    monkeypatch.setenv("AWS_PROFILE", "y")
    with pytest.raises(ValueError, match=r"config profile \(y\) could not be found"):
        resolve("s3://bucket")


def test_a_store_goes_with_its_settings_to_where_the_environment_lacks_them(
    s3_server: Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    store = open_store(s3_uri.partition("?")[0])
    assert isinstance(store, S3Store)
    assert store.connection.endpoint == s3_server.endpoint
    store.put("a", b"here")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    program = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).get('a').decode())"
    assert python(program, pickle.dumps(store).hex()) == "here"


def test_a_forked_process_makes_a_client_of_its_own(s3_uri: str):
    program = """
import os, sys
from retort.store import open_store
store = open_store(sys.argv[1])
children = []
for number in range(4):
    child = os.fork()
    if not child:
        for _ in range(10):
            store.put(f"{number}/{_}", b"x" * 1000)
        os._exit(0)
    children.append(child)
assert {os.waitpid(child, 0)[1] for child in children} == {0}
print(len(store.keys("")))
"""
    assert python(program, s3_uri) == "40"


def test_threads_share_a_store(s3_uri: str):
    store = open_store(s3_uri)
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda number: store.put(f"{number % 12}", f"{number}".encode()), range(48)))
    assert sum(won) == 12
    assert len(store.keys("")) == 12


def test_a_listing_of_many_pages_is_whole(s3_uri: str):
    store = open_store(s3_uri)
    count = 230 if "swift" in os.environ.get("PYTEST_CURRENT_TEST", "") else 1200  # of 100 and 1000 a page
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: store.replace(f"many/{number:05}", b""), range(count)))
    assert store.keys("many/") == [f"many/{number:05}" for number in range(count)]
    assert store.keys("many/0000") == [f"many/{number:05}" for number in range(10)]


# Trouble that passes


def test_trouble_that_passes_is_waited_for(store: Store, faulty: Faulty):
    faulty.next("503", "reset", "ConditionalRequestConflict", "slow")
    assert store.put("a", b"first")
    faulty.next("500", "SlowDown", "reset")
    assert store.get("a") == b"first"
    faulty.next("429", "408", "503")
    assert store.keys("") == ["a"]
    faulty.next("503", "500", "reset", "slow")  # pyarrow's own retries
    assert store.open("a").read() == b"first"
    assert sum(status in (0, 500, 503, 409, 429, 408) for _, _, status in faulty.seen) == 4 * 3


def test_a_put_whose_answer_was_lost_is_still_the_first(store: Store, faulty: Faulty):
    faulty.next("lose")
    assert store.put("mine", b"mine") is True
    assert [(method, status) for method, _, status in faulty.seen] == [("PUT", 0), ("PUT", 412), ("GET", 200)]
    assert store.get("mine") == b"mine"
    faulty.next("lose", "pass", "lose")
    assert store.put("again", b"mine") is True


def test_a_put_that_was_tried_again_does_not_claim_what_another_wrote(store: Store, faulty: Faulty):
    store.put("theirs", b"theirs")
    faulty.next("reset", "503")
    assert store.put("theirs", b"mine") is False
    assert store.get("theirs") == b"theirs"
    faulty.seen.clear()
    assert store.put("theirs", b"theirs") is False, "known from the first answer"
    assert [method for method, _, _ in faulty.seen] == ["PUT"]


def test_a_large_file_survives_a_failing_upload(store: Store, faulty: Faulty, tmp_path: Path):
    (tmp_path / "file").write_bytes(LARGE)
    faulty.next("503", "pass", "reset", "500", "lose")
    store.put_file("large", tmp_path / "file")
    assert store.get("large") == LARGE
    assert len([path for _, path, status in faulty.seen if "partNumber" in path and status == 200]) >= 3


def test_an_upload_whose_last_answer_was_lost_is_there(store: Store, faulty: Faulty, tmp_path: Path):
    (tmp_path / "file").write_bytes(LARGE)
    faulty.next("pass", "pass", "pass", "pass", "lose")
    store.put_file("large", tmp_path / "file")
    completions = [status for method, path, status in faulty.seen if method == "POST" and "uploadId" in path]
    assert completions[0] == 0
    assert len(completions) > 1
    assert store.get("large") == LARGE


def test_an_upload_that_fails_leaves_neither_object_nor_parts(
    store: Store, faulty: Faulty, tmp_path: Path, s3_server: Server, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_bytes(LARGE)
    faulty.next("pass", "pass", "403", "403")
    with pytest.raises(PermissionError, match=r"^put s3://.*/large: 403 InternalError made up"):
        store.put_file("large", tmp_path / "file")
    assert not store.exists("large")
    client: Any = Session().client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1")
    assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    client.close()


def test_a_server_that_is_killed_and_started_again_is_waited_for(
    s3_uri: str, s3_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = open_store(s3_uri)
    (tmp_path / "file").write_bytes(LARGE)
    written: list[str] = []

    def write() -> None:
        for number in range(6):
            store.put_file(f"large/{number}", tmp_path / "file")
            assert store.put(f"small/{number}", b"x")
            written.append(f"small/{number}")

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(write)
        while not written:
            time.sleep(0.01)
        s3_server.kill()
        before = len(written)
        while "trying again for up to 120 s" not in caplog.text:
            time.sleep(0.1)
        assert len(written) == before < 6
        s3_server.start()
        writing.result()
    assert store.keys("small/") == written
    assert [store.get(key) == LARGE for key in store.keys("large/")] == [True] * 6
    assert all(len(record.message.splitlines()) == 1 for record in caplog.records)


def test_trouble_that_does_not_pass_ends_with_object_and_cause(
    store: Store, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection, "PATIENCE_S", 1.0)  # of two minutes
    faulty.always("503")
    with pytest.raises(TimeoutError, match=r"^put s3://\S+/x: \d+ tries in \d s; 503 InternalError made up\Z"):
        store.put("x", b"")
    faulty.always("reset")
    with pytest.raises(TimeoutError, match=r"^get s3://\S+/x: \d+ tries in \d s; [^\n]+\Z"):
        store.get("x")
    faulty.always(None)
    assert store.put("x", b""), "the caller can try again"


# Stores that are refused


class _Yes(http.server.BaseHTTPRequestHandler):
    """A store that answers 200 to everything, as those do that do not know conditional writes."""

    status = 200

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_DELETE = answer  # noqa: N815 (http.server calls them so)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _NotImplemented(_Yes):
    status = 501


@pytest.mark.parametrize(
    ("peer", "said"), [(_Yes, "overwrites objects in spite of `If-None-Match: *`"), (_NotImplemented, "501")]
)
def test_a_store_without_conditional_writes_is_refused(peer: type[_Yes], said: str):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), peer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        with pytest.raises(ValueError, match=r"^store 's3://bucket[^\n]+\Z") as refused:
            open_store(f"s3://bucket?endpoint=http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert said in str(refused.value)


def test_opening_leaves_nothing_behind(s3_uri: str):
    assert open_store(s3_uri).keys("") == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": CANARY}, "403 SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": CANARY}, "403 "),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate credentials"),
    ],
)
def test_wrong_or_no_credentials_are_refused_in_one_line(
    environment: dict[str, str | None], said: str, s3_uri: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^store 's3://[^\n]+ cannot be used: [^\n]+\Z") as refused:
        through(s3_uri, faulty)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)


def test_a_bucket_that_is_not_there_is_refused(s3_server: Server):
    with pytest.raises(ValueError, match=r"^store 's3://no-such-bucket\?[^\n]+: 404 NoSuchBucket[^\n]+\Z"):
        open_store(f"s3://no-such-bucket?endpoint={s3_server.endpoint}")


def test_credentials_that_have_expired_are_refused_at_once(s3_uri: str, faulty: Faulty):
    faulty.always("ExpiredToken")
    before = time.monotonic()
    with pytest.raises(ValueError, match="400 ExpiredToken made up"):
        through(s3_uri, faulty)
    assert time.monotonic() - before < connection.OPENING_S / 2


def test_an_endpoint_that_does_not_answer_is_told_while_opening(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "OPENING_S", 0.5)
    with pytest.raises(TimeoutError, match=r"^put s3://bucket/\.probe-\S+: \d+ tries in \d s; Could not connect[^\n]+"):
        open_store("s3://bucket?endpoint=http://127.0.0.1:9")


# Credentials


@pytest.fixture
def between(s3_servers: Callable[[str], Server]) -> Iterator[Faulty]:
    """In front of Swift, which passes over session tokens; Ceph takes them for its own."""
    with Faulty(s3_servers("swift").endpoint) as made:
        yield made


@pytest.fixture
def expiring(tmp_path: Path, between: Faulty, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Credentials good for two seconds, and a server that holds them to it; returns how often they were asked for."""
    program, count = tmp_path / "credentials.py", tmp_path / "count"
    program.write_text(
        f"""
import datetime, json, time
with open({str(count)!r}, "a") as file:
    file.write("x")
until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
keys = {{"AccessKeyId": {ACCESS_KEY!r}, "SecretAccessKey": {SECRET_KEY!r}}}
print(json.dumps({{"Version": 1, **keys, "SessionToken": str(until.timestamp()), "Expiration": until.isoformat()}}))
"""
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    between.accepts = lambda headers: float(headers.get("X-Amz-Security-Token", 0)) > time.time()
    return lambda: len(count.read_text())


def test_credentials_that_expire_are_renewed(between: Faulty, expiring: Callable[[], int]):
    store = through(f"s3://{BUCKET}/{uuid.uuid4().hex}", between)
    made = expiring()
    for number in range(4):
        assert store.put(f"{number}", b"x")
        assert store.open(f"{number}").read() == b"x"
        time.sleep(1)
    assert len(store.keys("")) == 4
    assert expiring() - made >= 2
    assert {status for _, _, status in between.seen} <= {200, 206}, "none was used after its time"


def test_credentials_that_are_still_expired_when_renewed_are_waited_for(
    between: Faulty, expiring: Callable[[], int], tmp_path: Path
):
    store = through(f"s3://{BUCKET}/{uuid.uuid4().hex}", between)
    program = tmp_path / "credentials.py"
    good = program.read_text()
    program.write_text(good.replace("seconds=2", "seconds=-2"))
    renewal = threading.Timer(3, program.write_text, [good])
    renewal.start()
    time.sleep(2)
    assert store.put("a", b"x")
    renewal.join()


def test_an_error_that_is_not_of_the_store_is_not_tried_again(s3_uri: str):
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)
    tries: list[int] = []

    def fail(_: Any) -> None:
        tries.append(1)
        raise RuntimeError("cannot schedule new futures after shutdown")

    with pytest.raises(RuntimeError, match="cannot schedule"):
        store.connection.attempt("get", fail)
    assert tries == [1]


def test_credentials_that_were_renewed_by_hand_are_found(
    between: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def write(token: str) -> None:
        keys = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        (tmp_path / "credentials").write_text(f"[default]\n{keys}aws_session_token = {token}\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    write("yesterday")
    store = through(f"s3://{BUCKET}/{uuid.uuid4().hex}", between)
    between.accepts = lambda headers: headers.get("X-Amz-Security-Token") == "today"
    renewal = threading.Timer(1, write, ["today"])
    renewal.start()
    assert store.put("a", b"x"), "waited for the new ones"
    renewal.join()
    assert {status for _, _, status in between.seen} == {400, 200}


def test_no_secret_is_in_what_a_store_says_of_itself(
    s3_uri: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    store = through(s3_uri, faulty)
    store.put("a", b"x")
    said = [store.uri, repr(store), str(pickle.dumps(store))]
    monkeypatch.setattr(connection, "PATIENCE_S", 0.1)
    for fault in ("403", "501", "503", "reset"):
        faulty.always(fault)
        for refused in (lambda: store.put("b", b""), lambda: store.get("a"), lambda: store.keys("")):
            with pytest.raises(OSError, match="s3://") as failure:
                refused()
            said += [str(failure.value), repr(failure.value), str(failure.value.__cause__)]
    assert SECRET_KEY not in " ".join([*said, caplog.text])
    assert any("501" in text for text in said)


# Copies on this machine


def test_a_directory_is_fetched_once_and_anew_when_it_changes(store: Store, faulty: Faulty):
    store.put("d/a", b"a")
    store.put("d/b/c", b"c")
    first = store.directory("d/")
    faulty.seen.clear()
    assert store.directory("d/") == first
    assert [method for method, path, _ in faulty.seen if "list-type" not in path] == []
    store.put("d/e", b"")
    second = store.directory("d/")
    names = sorted(str(path.relative_to(second)) for path in Path(second).rglob("*") if path.is_file())
    assert names == ["a", "b/c", "e"]
    assert sorted(path.name for path in Path(first).iterdir()) == ["a", "b"]


def test_processes_that_want_a_directory_at_once_fetch_it_once(store: Store, faulty: Faulty, tmp_path: Path):
    (tmp_path / "file").write_bytes(LARGE)
    store.put_file("d/file", tmp_path / "file")
    faulty.seen.clear()
    program = "import sys; from retort.store import fetch; print(fetch(sys.argv[1]))"
    uri = store.uri.replace("?", "/d?")
    with ThreadPoolExecutor(3) as threads:
        found = set(threads.map(lambda _: python(program, uri), range(3)))
    assert len(found) == 1
    assert Path(found.pop(), "file").read_bytes() == LARGE
    assert len([path for method, path, _ in faulty.seen if method == "GET" and "list-type" not in path]) == 3


def test_a_fetch_that_died_is_begun_again(store: Store, tmp_path: Path):
    store.put("d/a", b"a")
    there = Path(store.directory("d/"))
    there.rename(there.with_name(f"{there.name}.partial"))
    (there.with_name(f"{there.name}.partial") / "rest").touch()
    assert [path.name for path in Path(store.directory("d/")).iterdir()] == ["a"]


def test_a_key_that_leads_out_of_the_directory_is_refused(store: Store):
    store.put("d/../../escaped", b"")
    with pytest.raises(ValueError, match=r"cannot become a file"):
        store.directory("d/")
