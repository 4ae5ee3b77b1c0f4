"""Asking a server under OpenAI's API: what an answer looks like, what is asked again, what a refusal tells a user."""

import asyncio
import contextlib
import email.utils
import json
import logging
import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from retort.engines.interface import PromptTooLongError
from retort.records import FinishReason

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)
TELL_EVERY_S = 5.0
BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
"""A server that wants more is out of quota for the day: better said than slept through."""
LONGEST_PAUSES_S = 1800.0
"""How long a server may go on asking for pauses while it answers nothing at all."""
PAUSE_JITTER_S = 0.5
"""After a pause those who wait come back over this time at least, and over a fifth of the pause."""
CONNECT_TIMEOUT_S = 10.0
PATHS = {"chat": "/chat/completions", "completions": "/completions"}
TOO_LONG = re.compile(r"context.?(length|window|size)|prompt is too long|max_model_len", re.IGNORECASE)
SETTINGS = {"n": "siblings", "seed": "send_seed", "max_tokens": "max_new_tokens", "messages": "api", "prompt": "api"}
"""Settings whose names differ from those of the fields that they fill."""
CUT_OFF = {"length", "max_tokens", "model_length"}
BROKEN_OFF = {"abort", "error", "cancelled"}


class TokenLogprob(BaseModel):
    """A token of a chat's answer."""

    logprob: float | None = None


class Logprobs(BaseModel):
    """Both APIs' ways to tell the log-probabilities of tokens."""

    content: tuple[TokenLogprob, ...] | None = None
    token_logprobs: tuple[float | None, ...] | None = None

    @property
    def values(self) -> tuple[float, ...]:
        """One a token; none at all where one is not told."""
        told = tuple(token.logprob for token in self.content or ()) or self.token_logprobs or ()
        known = tuple(value for value in told if value is not None)
        return known if len(known) == len(told) else ()


class Message(BaseModel):
    """What a chat model says; servers name the part that their parser took for reasoning in two ways."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(BaseModel):
    """One completion of either API, with what vLLM's server adds."""

    index: int = 0
    finish_reason: str | None = None
    text: str | None = None
    message: Message | None = None
    logprobs: Logprobs | None = None
    token_ids: tuple[int, ...] | None = None
    stop_reason: int | str | None = None

    @property
    def said(self) -> str:
        """What the model said, in either API; what was taken for reasoning stands first."""
        if self.text is not None:
            return self.text
        message = self.message or Message()
        return "\n\n".join(filter(None, (message.reasoning_content or message.reasoning, message.content)))

    @property
    def ended(self) -> FinishReason | None:
        """How it ended; None where it was broken off. A reason that nobody here knows is no reason to buy it again."""
        if not self.finish_reason:
            return "stop" if self.said else None
        reason = self.finish_reason.lower()
        return "length" if reason in CUT_OFF else None if reason in BROKEN_OFF else "stop"


class Usage(BaseModel):
    """Tokens of a whole answer."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Answer(BaseModel):
    """What a server answers; a body that lacks choices is a failure, whatever its status says."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


class Caller:
    """A client that sends a request until it is answered or refused. Lives in one event loop."""

    def __init__(
        self, base_url: str, key: str, api: Literal["chat", "completions"], timeout_s: float, max_retries: int
    ) -> None:
        import openai

        self._base_url, self._key, self._path = base_url, key, PATHS[api]
        self._timeout_s, self._max_retries = timeout_s, max_retries
        # Retries are ours: the library's wait no longer than 8 s, all requests at once, and give up on long pauses.
        timeout = openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        # Without a key of ours the library would send one that it finds in the environment.
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=0)
        self._headers: dict[str, str | openai.Omit] = {} if key else {"Authorization": openai.Omit()}
        self._loop = asyncio.get_running_loop()
        self._paused_until = self._answered_at = self._told_at = 0.0

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """The server's answer.

        Raises:
            PromptTooLongError: the model cannot see so much.
            ValueError: a refusal that sending it again would not change.
            ConnectionError: no answer after all retries; or a pause is asked for that is longer than
                `LONGEST_RETRY_AFTER_S`, or one more after `LONGEST_PAUSES_S` in which nobody got an answer.
        """
        started, tries = time.monotonic(), 0
        while True:
            while (wait_s := self._paused_until - time.monotonic()) > 0:
                # Who comes back first may be told to wait again, and all others with him.
                await asyncio.sleep(wait_s + random.uniform(0, max(wait_s / 5, PAUSE_JITTER_S)))
            answer = await self._send(body)
            if isinstance(answer, Answer):
                self._answered_at = time.monotonic()
                return answer
            self._refuse(answer, body)
            pause_s = _retry_after_s(answer)
            if pause_s is not None:
                self._pause(pause_s, answer, since=max(started, self._answered_at))
                continue
            tries += 1
            if tries > self._max_retries:
                raise ConnectionError(
                    f"{self._base_url}: {tries} tries in {time.monotonic() - started:.0f} s without an answer (the "
                    f"last: {self._said(answer)}); is the server up? Run again when it is, or raise max_retries"
                )
            self._tell(f"no answer in {tries} of {self._max_retries + 1} tries", answer)
            await asyncio.sleep(min(BACK_OFF_S * 2 ** (tries - 1), LONGEST_BACK_OFF_S) * random.uniform(0.5, 1))

    def _pause(self, pause_s: float, failure: Exception, since: float) -> None:
        """Leave the server alone for so long; nothing was answered `since`. Raises ConnectionError where it is enough.

        A server that asks for pauses is at its limit and not broken: that is no failure for `max_retries` to count.
        """
        until = time.monotonic() + pause_s
        if pause_s > LONGEST_RETRY_AFTER_S:
            raise ConnectionError(
                f"{self._base_url} asks for a pause of {pause_s:.0f} s, more than the {LONGEST_RETRY_AFTER_S:.0f} s "
                f"that are waited ({self._said(failure)}); run again after it"
            )
        if until - since > LONGEST_PAUSES_S:
            raise ConnectionError(
                f"{self._base_url} asks for one more pause, of {pause_s:.0f} s, and has answered nothing for "
                f"{time.monotonic() - since:.0f} s, where {LONGEST_PAUSES_S:.0f} s are waited in all "
                f"({self._said(failure)}); lower max_concurrency, or run again later"
            )
        self._paused_until = max(self._paused_until, until)
        self._tell(f"asks for a pause of {pause_s:.0f} s", failure)

    def _tell(self, what: str, failure: Exception) -> None:
        """Say now and then what all requests are waiting for."""
        if time.monotonic() - self._told_at > TELL_EVERY_S:
            self._told_at = time.monotonic()
            logger.warning("%s: %s (%s)", self._base_url, what, self._said(failure))

    async def _send(self, body: Mapping[str, Any]) -> "Answer | openai.APIError | ValueError":
        """What comes back, an error among it.

        Errors are handed on and not raised, so that none of ours has one as its context: what a server says of a key
        must not reach a traceback.
        """
        import openai

        try:
            data: object = await self._client.post(
                self._path, body=body, cast_to=object, options={"headers": self._headers}
            )
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return error
        if isinstance(data, str):
            raise ValueError(f"base_url = {self._base_url!r}: answers, but not in JSON; is this the API (often …/v1)?")
        try:
            answer = Answer.model_validate(data)
        except ValidationError as error:
            if isinstance(data, dict) and data.get("choices"):  # paid for, and the next would be no better
                named, told = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
                raise ValueError(f"{self._base_url}: an answer that is not of this API, {named}: {told}") from None
            return ValueError(f"an answer without completions: {data}")
        if all(choice.ended is None for choice in answer.choices):
            return ValueError(f"a completion that did not end, finish_reason = {answer.choices[0].finish_reason!r}")
        return answer

    def _refuse(self, failure: Exception, body: Mapping[str, Any]) -> None:
        """Raise what a user has to change; return where the server may yet answer."""
        import openai

        if not isinstance(failure, openai.APIStatusError):
            return
        status, said = failure.status_code, self._said(failure)
        if status in (401, 403):
            raise ValueError(f"api_key_env: {self._base_url} does not accept the key for {body['model']!r} ({status})")
        if status == 404:
            raise ValueError(
                f"model = {body['model']!r}: {self._base_url} has no such model, or base_url is no such API ({said})"
            )
        if status in (400, 413, 422) and (failure.code == "context_length_exceeded" or TOO_LONG.search(said)):
            raise PromptTooLongError(f"{self._base_url}: {said}; lower max_new_tokens or ask a model that sees more")
        is_out_of_quota = status == 429 and failure.code == "insufficient_quota"
        if is_out_of_quota or (400 <= status < 500 and status not in (408, 409, 425, 429)):
            named = f"{SETTINGS.get(failure.param, failure.param)}: " if failure.param else ""
            raise ValueError(f"{named}{self._base_url} refuses the request ({said})")

    def _said(self, failure: Exception) -> str:
        """A failure in one line, without the key, which servers like to repeat."""
        import openai

        match failure:
            case openai.APIStatusError():
                told = failure.body.get("message") if isinstance(failure.body, dict) else failure.response.text
                line = f"{failure.status_code}: {told}"
            case openai.APITimeoutError():
                line = f"nothing within timeout_s = {self._timeout_s:g}"
            case openai.APIConnectionError():
                line = repr(failure.__cause__)
            case _:
                line = str(failure)
        line = line.replace(self._key, "***") if self._key else line
        return " ".join(line.split())[:300]

    def close(self) -> None:
        """Close connections, open requests with them; from any thread."""
        if self._loop.is_closed():
            return
        closing = self._client.close()
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(closing, self._loop)
        else:
            self._loop.run_until_complete(closing)


def _retry_after_s(failure: Exception) -> float | None:
    """Seconds that a server asks to be left alone for; it says so in seconds, milliseconds or as a date.

    None where it does not say, or names a moment that our clock takes for past: the clocks may differ by minutes.
    """
    import openai

    if not isinstance(failure, openai.APIStatusError):
        return None
    headers = failure.response.headers
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            if (seconds := float(headers.get(name, "")) * unit_s) > 0:
                return seconds
    with contextlib.suppress(ValueError, TypeError):
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        if (seconds := date.timestamp() - time.time()) > 0:
            return seconds
    return None
