"""The engine `endpoint` against a real HTTP server on loopback that misbehaves as it is told."""

import asyncio
import json
import logging
import pickle
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from retort import prompts
from retort.engines import endpoint, openai_api
from retort.engines.interface import Completion, PromptTooLongError, SamplingDistribution
from retort.records import Request

WARM = SamplingDistribution(temperature=0.7, top_p=0.9)
KEY = "canary-4f1d09"


class Host(ThreadingHTTPServer):
    """Answers each HTTP request by the next of `script`, and well where that is used up; notes what it was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.script: list[Callable[[Handler], None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.came_at_s: list[float] = []
        self.fields: dict[str, Any] = {}
        self.choice_fields: dict[str, Any] = {}
        self.num_choices: int | None = None
        self.takes_s = 0.0
        self.num_open = self.most_open = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is what some tests are about."""

    def answer(self, number: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As a well-behaved server would: each choice says which of which request it is."""
        choices: list[dict[str, Any]] = []
        for index in range(self.num_choices or body["n"]):
            text = f"{number}.{index}"
            said = {"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text}
            choices.insert(0, {"index": index, "finish_reason": "stop", **said, **self.choice_fields})
        usage = {"prompt_tokens": 11, "completion_tokens": 5 * len(choices)}
        return {"choices": choices, "usage": usage, **self.fields}


class Handler(BaseHTTPRequestHandler):
    server: Host  # type: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        host, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with host.lock:
            number = len(host.bodies)
            host.bodies.append(body)
            host.headers.append(self.headers)
            host.came_at_s.append(time.monotonic())
            step = host.script.pop(0) if host.script else None
            host.num_open += 1
            host.most_open = max(host.most_open, host.num_open)
        time.sleep(host.takes_s)
        with host.lock:
            host.num_open -= 1
        if step is None:
            self.give(200, host.answer(number, self.path, body))
        else:
            step(self)

    def give(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def status(number: int, headers: Mapping[str, str] | None = None, **error: Any) -> Callable[[Handler], None]:
    return lambda handler: handler.give(number, {"error": {"message": "not now", **error}}, headers)


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang_up_half_way(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"choi')
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(handler: Handler) -> None:
    time.sleep(1)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_KEY", KEY)


def config(host: Host | str, **fields: Any) -> endpoint.Config:
    base_url = host if isinstance(host, str) else host.base_url
    known = {"base_url": base_url, "model": "big", "revision": "1", "api": "completions", "api_key_env": "HOST_KEY"}
    return endpoint.Config.model_validate(known | fields)


def request(index: int = 0, max_new_tokens: int = 64) -> Request:
    return Request("hash", index, "", 100 + index, max_new_tokens, "t/train/0", "cot", "")


Asked = tuple[str | prompts.Messages, Request]


def ask_all(settings: endpoint.Config, asked: list[Asked], distribution: SamplingDistribution = WARM) -> list[Any]:
    """Completions of requests made at once, or what they raised."""

    async def run() -> list[Any]:
        engine = endpoint.Engine(settings)
        await engine.start()
        heard = await asyncio.gather(*(engine.complete(*one, distribution) for one in asked), return_exceptions=True)
        engine.close()
        await asyncio.sleep(0.01)  # lets the client close its connections
        return heard

    return asyncio.run(run())


def ask(settings: endpoint.Config, prompt: str | prompts.Messages = "Q", **fields: Any) -> Completion:
    (heard,) = ask_all(settings, [(prompt, request())], WARM.model_copy(update=fields))
    if isinstance(heard, BaseException):
        raise heard
    return heard


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_completion_is_what_the_server_says_of_it(api: str, host: Host) -> None:
    assert ask(config(host, api=api)) == Completion("0.0", "stop", num_prompt_tokens=11, num_tokens=5)


@pytest.mark.parametrize(
    ("fields", "prompt", "asked"),
    [
        ({}, "Q\n", {"prompt": "Q\n", "max_tokens": 64}),
        ({"api": "chat"}, "Q\n", {"messages": [{"role": "user", "content": "Q"}], "max_tokens": 64}),
        ({"api": "chat"}, [{"role": "user", "content": "Q"}], {"messages": [{"role": "user", "content": "Q"}]}),
        ({"api": "chat", "server": "openai"}, "Q", {"max_completion_tokens": 64, "max_tokens": None}),
        ({"server": "vllm"}, "Q", {"top_k": 0, "repetition_penalty": 1.0, "min_p": 0.0, "return_token_ids": False}),
        ({"server": "vllm", "token_ids": True}, "Q", {"return_token_ids": True}),
        ({}, "Q", {"seed": 100, "temperature": 0.7, "top_p": 0.9, "n": 1, "logprobs": None, "stop": None}),
        ({}, "Q", {"top_k": None, "return_token_ids": None}),
        ({"send_seed": False}, "Q", {"seed": None}),
        ({"logprobs": "sum"}, "Q", {"logprobs": 1}),
        ({"logprobs": "tokens", "api": "chat"}, "Q", {"logprobs": True}),
    ],
)
def test_a_server_is_asked_in_its_own_words(
    fields: dict[str, Any], prompt: str | prompts.Messages, asked: dict[str, Any], host: Host
) -> None:
    ask(config(host, **fields), prompt)
    (body,) = host.bodies
    assert {name: body.get(name) for name in asked} == asked
    assert body["model"] == "big"


def test_only_what_a_server_understands_is_asked_of_it(host: Host) -> None:
    assert ask(config(host, server="vllm"), top_k=5, stop=("\n", "Q")).text == "0.0"
    assert (host.bodies[0]["top_k"], host.bodies[0]["stop"]) == (5, ["\n", "Q"])
    with pytest.raises(ValueError, match=r"^top_k = 5: only a server = 'vllm' knows it; set top_k = 0$"):
        ask(config(host), top_k=5)
    with pytest.raises(ValueError, match=r"^api = 'completions': expected a prompt that is plain text, got messages"):
        ask(config(host), [{"role": "user", "content": "Q"}])
    with pytest.raises(ValueError, match=r"token_ids: only server = 'vllm' tells them, got server = 'other'"):
        config(host, token_ids=True)
    assert len(host.bodies) == 1


@pytest.mark.parametrize(
    ("told", "finish_reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("content_filter", "stop"),
        ("tool_calls", "stop"),
        ("eos_token", "stop"),
        ("unheard_of", "stop"),
        ("", "stop"),
        (None, "stop"),
    ],
)
def test_what_did_not_run_into_its_budget_has_ended_by_itself(told: str | None, finish_reason: str, host: Host) -> None:
    host.choice_fields = {"finish_reason": told}
    assert ask(config(host)).finish_reason == finish_reason


def broken_off(told: str | None, text: str) -> Callable[[Handler], None]:
    good = {"index": 0, "finish_reason": "stop", "text": "The answer is 7."}
    bad = {"index": 1, "finish_reason": told, "text": text}
    return lambda handler: handler.give(200, {"choices": [good, bad]})


@pytest.mark.parametrize(("told", "text"), [("abort", "The"), ("ERROR", "The"), ("", ""), (None, "")])
def test_a_completion_that_was_broken_off_is_asked_for_again_without_its_siblings(
    told: str | None, text: str, host: Host
) -> None:
    host.script = [broken_off(told, text)]
    pair: list[Asked] = [("Q", request(index)) for index in (0, 1)]
    heard = ask_all(config(host, siblings=2, max_retries=1), pair)
    assert [completion.text for completion in heard] == ["The answer is 7.", "1.0"]
    assert [body["n"] for body in host.bodies] == [2, 1]
    assert host.bodies[1]["seed"] == host.bodies[0]["seed"] + 1


def test_what_a_server_leaves_untold_costs_no_completion(host: Host) -> None:
    host.fields = {"usage": {"prompt_tokens": None, "completion_tokens": None}}
    host.choice_fields = {"message": None, "logprobs": {"token_logprobs": [None, -1.0]}, "stop_reason": None}
    completion = ask(config(host, logprobs="sum"))
    assert (completion.text, completion.logprob, completion.num_tokens) == ("0.0", None, 0)
    assert len(host.bodies) == 1


def test_an_answer_that_is_not_of_the_api_is_not_bought_again(host: Host) -> None:
    host.choice_fields = {"text": ["not", "a", "text"]}
    with pytest.raises(ValueError, match=r"an answer that is not of this API, choices\.0\.text: "):
        ask(config(host, max_retries=3))
    assert len(host.bodies) == 1


def test_a_server_that_breaks_off_every_completion_is_an_error_that_names_the_reason(host: Host) -> None:
    host.choice_fields = {"finish_reason": "abort"}
    with pytest.raises(ConnectionError, match=r"the last: a completion that did not end, finish_reason = 'abort'"):
        ask(config(host, max_retries=0))


CHAT_LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.0}]}
TEXT_LOGPROBS = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{}, {}]}


@pytest.mark.parametrize(("api", "logprobs"), [("chat", CHAT_LOGPROBS), ("completions", TEXT_LOGPROBS)])
def test_log_probabilities_are_read_in_either_shape(api: str, logprobs: dict[str, Any], host: Host) -> None:
    assert ask(config(host, api=api, logprobs="sum")).logprob is None, "a server that has none is no failure"
    host.choice_fields = {"logprobs": logprobs}
    assert ask(config(host, api=api, logprobs="sum"))[5:] == (-1.5, (), ())
    assert ask(config(host, api=api, logprobs="tokens"))[5:] == (-1.5, (-0.5, -1.0), ())
    assert ask(config(host, api=api))[5:] == (None, (), ())


def test_counts_are_as_exact_as_the_server_tells_them_and_zero_where_it_does_not(host: Host) -> None:
    pair: list[Asked] = [("Q", request(index)) for index in (0, 1)]

    def counts(**fields: Any) -> list[tuple[int, int]]:
        return [(one.num_prompt_tokens, one.num_tokens) for one in ask_all(config(host, siblings=2, **fields), pair)]

    assert counts() == [(11, 5)] * 2
    host.choice_fields = {"logprobs": TEXT_LOGPROBS}
    assert counts() == [(11, 2)] * 2
    host.choice_fields = {"token_ids": [4, 5, 6]}
    assert counts(server="vllm", token_ids=True) == [(11, 3)] * 2
    host.choice_fields, host.fields = {}, {"usage": None}
    assert ask(config(host)) == Completion("3.0", "stop", 0, 0)
    assert counts() == [(0, 0)] * 2


@pytest.mark.parametrize(
    ("texts", "num_tokens", "shares"),
    [
        (["a" * 79, "b" * 19], 50, [40, 10]),
        (["one", "two", "six"], 10, [3, 3, 4]),
        (["a" * 8, ""], 10, [9, 1]),
        (["", ""], 3, [1, 2]),
    ],
)
def test_siblings_share_the_tokens_that_are_told_as_one_sum(
    texts: list[str], num_tokens: int, shares: list[int], host: Host
) -> None:
    choices = [{"index": place, "finish_reason": "stop", "text": text} for place, text in enumerate(texts)]
    host.fields = {"choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": num_tokens}}
    asked: list[Asked] = [("Q", request(index)) for index in range(len(texts))]
    heard = ask_all(config(host, siblings=len(texts)), asked)
    assert [(one.text, one.num_tokens) for one in heard] == list(zip(texts, shares, strict=True))
    assert sum(shares) == num_tokens


def test_a_stop_string_is_named_where_the_server_names_it(host: Host) -> None:
    assert ask(config(host), stop=("\n",)).stop is None
    for told, stop in (("\n", "\n"), (151643, None)):
        host.choice_fields = {"stop_reason": told}
        assert ask(config(host), stop=("\n",)).stop == stop


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_a_parser_took_for_reasoning_stands_before_the_answer(name: str, host: Host) -> None:
    for content, text in (("7.", "12 + 5\n\n7."), (None, "12 + 5")):
        host.choice_fields = {"message": {"role": "assistant", "content": content, name: "12 + 5"}}
        assert ask(config(host, api="chat")).text == text


def test_siblings_are_asked_for_together_and_get_a_choice_each(host: Host) -> None:
    asked: list[Asked] = [(prompt, request(index)) for prompt in ("P", "Q") for index in range(6)]
    heard = ask_all(config(host, siblings=4), asked)
    assert sorted((body["prompt"], body["n"]) for body in host.bodies) == [("P", 2), ("P", 4), ("Q", 2), ("Q", 4)]
    for (prompt, _), completion in zip(asked, heard, strict=True):
        assert host.bodies[int(completion.text.split(".")[0])]["prompt"] == prompt
    assert len({completion.text for completion in heard}) == 12


def test_each_sibling_is_the_draw_of_its_own_index_whatever_is_missing_between_them(host: Host) -> None:
    """vLLM's server draws choice i with the seed of the request plus i; any other would be another index's draw."""
    indexes = [0, 1, 4, 9, 5, 6, 10, 7, 8]
    asked: list[Asked] = [("Q", request(index)) for index in indexes]
    heard = ask_all(config(host, siblings=4), asked)
    assert sorted((body["seed"], body["n"]) for body in host.bodies) == [(100, 2), (104, 4), (108, 1), (109, 2)]
    for (_, one), completion in zip(asked, heard, strict=True):
        number, place = map(int, completion.text.split("."))
        assert host.bodies[number]["seed"] + place == one.seed
    ask_all(config(host, siblings=9, send_seed=False), asked)
    assert host.bodies[-1]["n"] == 9, "without a seed all draws are new"


def test_only_chains_of_one_prompt_budget_and_distribution_are_siblings(host: Host) -> None:
    async def run() -> None:
        engine = endpoint.Engine(config(host, siblings=8))
        await engine.start()
        others = [
            ("Q", request(0, 32), WARM),
            ("Q", request(0), SamplingDistribution(temperature=0)),
            ("P", request(0), WARM),
        ]
        same = [("Q", request(index), WARM) for index in (0, 1)]
        await asyncio.gather(*(engine.complete(*one) for one in [*others, *same]))
        engine.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert sorted(body["n"] for body in host.bodies) == [1, 1, 1, 2]


def test_a_server_that_gives_fewer_than_were_asked_for_is_reported_and_what_came_is_kept(host: Host) -> None:
    host.num_choices = 1
    first, *others = ask_all(config(host, siblings=3), [("Q", request(index)) for index in range(3)])
    assert first.text == "0.0"
    assert {str(other) for other in others} == {
        f"siblings = 3: {host.base_url} gave 1 of 3 completions that were asked for at once; set siblings = 1"
    }


def test_a_sibling_that_is_given_up_leaves_the_others_theirs(host: Host) -> None:
    host.takes_s = 0.2

    async def run() -> list[Any]:
        engine = endpoint.Engine(config(host, siblings=3))
        await engine.start()
        tasks = [asyncio.create_task(engine.complete("Q", request(index), WARM)) for index in range(3)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        heard = await asyncio.gather(*tasks, return_exceptions=True)
        engine.close()
        await asyncio.sleep(0.01)
        return heard

    given_up, *others = asyncio.run(run())
    assert isinstance(given_up, asyncio.CancelledError)
    assert [other.text for other in others] == ["0.1", "0.2"]


def test_no_more_requests_are_open_than_allowed(host: Host) -> None:
    host.takes_s = 0.05
    heard = ask_all(config(host, max_concurrency=3), [(f"Q{index}", request(index)) for index in range(12)])
    assert len({completion.text for completion in heard}) == 12
    assert host.most_open == 3


@pytest.mark.parametrize(
    "failure",
    [
        status(429),
        status(408),
        status(500),
        status(503),
        reset,
        hang_up_half_way,
        hang,
        lambda handler: handler.give(200, {"error": {"message": "the upstream broke"}}),
        lambda handler: handler.give(200, {"choices": []}),
        lambda handler: handler.give(200, b"{'choices"),
        lambda handler: handler.give(502, b"<html>Bad gateway</html>", {"Content-Type": "text/html"}),
    ],
    ids=[
        "429",
        "408",
        "500",
        "503",
        "reset",
        "cut off",
        "silence",
        "error in 200",
        "no choices",
        "no JSON",
        "502 page",
    ],
)
def test_what_may_pass_is_asked_again(failure: Callable[[Handler], None], host: Host) -> None:
    host.script = [failure]
    assert ask(config(host, timeout_s=0.5, max_retries=1)).text == "1.0"
    assert host.bodies[0] == host.bodies[1]


def test_a_pause_that_is_asked_for_holds_for_all_requests(host: Host) -> None:
    host.script = [status(429, {"Retry-After": "1"})]

    async def run() -> None:
        engine = endpoint.Engine(config(host))
        await engine.start()
        first = asyncio.create_task(engine.complete("Q", request(), WARM))
        await asyncio.sleep(0.3)
        others = [asyncio.create_task(engine.complete(f"Q{index}", request(), WARM)) for index in range(4)]
        await asyncio.sleep(0.68)
        late = (engine.complete(f"late {index}", request(), WARM) for index in range(12))
        await asyncio.gather(first, *others, *late)
        engine.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    waited_s = [at_s - host.came_at_s[0] for at_s in host.came_at_s[1:]]
    assert len(waited_s) == 17
    assert min(waited_s) >= 0.99
    late_s = [at_s for body, at_s in zip(host.bodies, host.came_at_s, strict=True) if "late" in body["prompt"]]
    assert max(late_s) - min(late_s) > 0.1, "those for whom the pause was nearly over come at one moment"


@pytest.mark.parametrize(
    ("told", "at_least_s"),
    [
        (lambda: {"Retry-After": "1.2"}, 1.2),
        (lambda: {"retry-after-ms": "1100", "Retry-After": "60"}, 1.1),
        # Whole seconds: of two at least one is left.
        (lambda: {"Retry-After": formatdate(time.time() + 2, usegmt=True)}, 0.9),
    ],
    ids=["seconds", "milliseconds", "date"],
)
def test_a_pause_may_be_told_in_three_ways(told: Callable[[], dict[str, str]], at_least_s: float, host: Host) -> None:
    host.script = [status(503, told())]
    ask(config(host))
    assert host.came_at_s[1] - host.came_at_s[0] >= at_least_s


@pytest.mark.parametrize("told", [formatdate(time.time() - 90, usegmt=True), "0", "soon"], ids=["past", "none", "text"])
def test_a_pause_that_seems_over_already_is_no_reason_to_ask_again_at_once(told: str, host: Host) -> None:
    host.script = [status(429, {"Retry-After": told})] * 2
    with pytest.raises(ConnectionError, match="2 tries in"):
        ask(config(host, max_retries=1))
    assert host.came_at_s[1] - host.came_at_s[0] >= openai_api.BACK_OFF_S / 2


def test_pauses_that_a_server_asks_for_are_no_failed_tries(host: Host) -> None:
    host.script = [status(429, {"retry-after-ms": "20"})] * 4
    assert ask(config(host, max_retries=0)).text == "4.0"


def test_a_server_that_only_asks_for_pauses_is_not_waited_for_without_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "LONGEST_PAUSES_S", 1.0)  # of half an hour
    host.script = [status(429, {"retry-after-ms": "300"}, message="slowly")] * 9
    with pytest.raises(
        ConnectionError, match=r"\A[^\n]+ asks for one more pause[^\n]+429: slowly[^\n]+max_concurrency[^\n]+\Z"
    ):
        ask(config(host, max_retries=0))
    assert 2 <= len(host.bodies) <= 4


def test_a_pause_of_hours_ends_the_engine_at_once(host: Host) -> None:
    host.script = [status(429, {"Retry-After": "3600"}, message="daily limit")] * 2
    with pytest.raises(ConnectionError, match=r"\A[^\n]+ asks for a pause of 3600 s[^\n]+daily limit[^\n]+\Z"):
        ask(config(host))
    assert len(host.bodies) == 1


def test_retries_are_bounded_and_their_end_says_what_was_last(host: Host) -> None:
    host.script = [status(500), status(503, message="still\nloading"), status(500)]
    with pytest.raises(
        ConnectionError, match=r"\A[^\n]+: 2 tries in \d+ s without an answer \(the last: 503: still load"
    ):
        ask(config(host, max_retries=1))
    assert len(host.bodies) == 2
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"is the server up\? Run again when it is"):
        ask(config(f"http://127.0.0.1:{port}/v1", max_retries=0))


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (401, {}, r"api_key_env: .+ does not accept the key for 'big' \(401\)"),
        (403, {}, r"api_key_env: .+ does not accept the key for 'big' \(403\)"),
        (404, {"message": "no model big"}, r"model = 'big': .+ or base_url is no such API \(404: no model big\)"),
        (400, {"param": "n", "message": "n is 1"}, r"siblings: .+ refuses the request \(400: n is 1\)"),
        (400, {"param": "temperature"}, r"temperature: .+ refuses the request \(400: not now\)"),
        (422, {"param": "seed"}, r"send_seed: .+ refuses the request \(422: not now\)"),
        (400, {}, r"http://127[^ ]+ refuses the request \(400: not now\)"),
        (429, {"code": "insufficient_quota", "message": "no money"}, r".+ refuses the request \(429: no money\)"),
    ],
)
def test_a_refusal_is_not_asked_again_and_names_the_setting(
    code: int, error: dict[str, Any], said: str, host: Host
) -> None:
    host.script = [status(code, **error)] * 2
    with pytest.raises(ValueError, match=rf"\A{said}\Z") as refused:
        ask(config(host))
    assert type(refused.value) is ValueError
    assert len(host.bodies) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "too many"},
        {"message": "This model's maximum context length is 512 tokens. However, you requested 700 tokens"},
        {"message": "prompt is too long: 212000 tokens > 200000 maximum"},
        {"message": "max_tokens: 900 exceeds the context window of 512"},
    ],
)
def test_a_prompt_that_the_model_cannot_see_is_told_apart(error: dict[str, Any], host: Host) -> None:
    host.script = [status(400, **error)]
    with pytest.raises(PromptTooLongError, match=r"\A[^\n]+; lower max_new_tokens or ask a model that sees more\Z"):
        ask(config(host))


def test_a_page_instead_of_an_api_is_a_wrong_address(host: Host) -> None:
    host.script = [lambda handler: handler.give(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})]
    with pytest.raises(ValueError, match=r"\Abase_url = '.+': answers, but not in JSON; is this the API"):
        ask(config(host))


def test_a_server_that_does_not_answer_is_told_of_while_it_is_waited_for(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.script = [status(503), status(503)]
    assert ask(config(host)).text == "2.0"
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{host.base_url}: no answer in 1 of 11 tries (503: not now)"


def test_the_key_reaches_the_server_and_nothing_else(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo: dict[str, Any] = {"message": f"the key {KEY} of Bearer {KEY} is\n{KEY}"}
    failures = [status(code, **echo) for code in (400, 401, 403, 404, 429, 500)]
    failures += [lambda handler: handler.give(200, {"error": echo})]
    settings, told = config(host, max_retries=0), list[str]()
    for failure in failures:
        host.script = [failure]
        with pytest.raises((ValueError, ConnectionError)) as raised:
            ask(settings)
        told += [str(raised.value), *traceback.format_exception(raised.value), repr(raised.value.__context__)]
    ask(settings)
    assert {headers["Authorization"] for headers in host.headers} == {f"Bearer {KEY}"}
    told += [repr(settings), settings.model_dump_json(), str(settings.identity()), str(pickle.dumps(settings))]
    told += [caplog.text]
    assert len(caplog.text) > 0
    assert [text for text in told if KEY in text] == []


def test_no_key_is_sent_where_none_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = config(host, api_key_env="")
    settings.check()
    ask(settings)
    assert "Authorization" not in host.headers[0]


def test_a_key_that_is_not_there_is_missed_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOST_KEY")
    with pytest.raises(ValueError, match=r"\Aapi_key_env = 'HOST_KEY': no such environment variable[^\n]+\Z"):
        config("https://example.org/v1").check()


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "example.org/v1"},
        {"base_url": "ftp://example.org"},
        {"base_url": f"https://me:{KEY}@example.org/v1"},
        {"base_url": f"https://example.org/v1?key={KEY}"},
        {"api_key_env": KEY},
        {"api_key_env": f"sk-{KEY}"},
        {"revision": ""},
        {"max_concurrency": 0},
    ],
)
def test_settings_that_cannot_be_are_refused_without_showing_a_key(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        config("https://example.org/v1", **fields)
    assert KEY not in str(refused.value)
    assert next(iter(fields)) in str(refused.value)


def test_a_model_is_known_by_its_name_and_label_wherever_it_is_served() -> None:
    known = config("https://a.example/v1").identity()
    assert known == config("https://b.example/v1/", api_key_env="", siblings=4, logprobs="sum").identity()
    others = [config("https://a.example/v1", **{name: "chat"}).identity() for name in ("model", "revision", "api")]
    assert len({json.dumps(one) for one in [known, *others]}) == 4


def test_closing_ends_what_is_open(host: Host) -> None:
    host.script = [hang]

    async def run() -> list[Any]:
        engine = endpoint.Engine(config(host))
        await engine.start()
        task = asyncio.create_task(engine.complete("Q", request(), WARM))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(engine.close)
        return list(await asyncio.gather(task, return_exceptions=True))

    (heard,) = asyncio.run(run())
    assert isinstance(heard, asyncio.CancelledError)
