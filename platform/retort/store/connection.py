"""A connection to S3-compatible storage: where it is, this process's credentials, and how long to keep trying.

Requests go through boto3 with its own retries off, so that one rule holds for all of them and so that it is known
whether an answer belongs to the first try. Reads of columns go through pyarrow's file system, which retries by itself.
"""

import functools
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import botocore.exceptions as failures
import pyarrow.fs
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from boto3.session import Session

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Kind = Literal["passing", "renewable", "denied", "missing", "other"]

PATIENCE_S = 120.0
"""How long a request is tried again: a server that is killed and started again is waited for."""
OPENING_S = 15.0
"""The same while a store is being opened, when the endpoint may be wrong and somebody is watching."""
_SAID_AFTER_S = 5.0
_LONGEST_PAUSE_S = 5.0

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
# Of those that come with a status 400 or 403. A clock that was stepped is set right again.
_PASSING_CODES = {"RequestTimeout", "Throttling", "RequestLimitExceeded", "BadDigest", "RequestTimeTooSkewed"}
_PASSING = (
    failures.ConnectionError,
    failures.HTTPClientError,
    failures.IncompleteReadError,
    failures.FlexibleChecksumError,
    ResponseParserError,
)
_RENEWABLE = (
    failures.CredentialRetrievalError,
    failures.MetadataRetrievalError,
    failures.TokenRetrievalError,
    failures.SSOError,
)
_STILL_EXPIRED = "refreshed credentials are still expired"
"""All that tells this RuntimeError of botocore's from any other."""
_ERRORS: dict[Kind, type[OSError]] = {
    "passing": TimeoutError,
    "renewable": PermissionError,
    "denied": PermissionError,
    "missing": FileNotFoundError,
    "other": OSError,
}


@dataclass(frozen=True)
class Connection:
    """Where a store is and how it is spoken to. Picklable; it holds no credentials, each process finds its own."""

    endpoint: str | None
    """`http://host:port`; None for AWS itself."""
    region: str
    addressing: Literal["path", "virtual"]
    """Whether the bucket is the first part of the path or of the host's name."""
    checksums: Literal["when_required", "when_supported"]
    """Whether requests carry more checksums than S3 demands; some stores refuse them."""

    def file_system(self) -> pyarrow.fs.S3FileSystem:
        """pyarrow's file system with the credentials as they are now: one that is kept grows old with them."""

        def keys(_: Any) -> tuple[str, str, str | None]:
            credentials = _session(self, os.getpid()).get_credentials()
            if credentials is None:
                raise failures.NoCredentialsError
            frozen = credentials.get_frozen_credentials()
            return frozen.access_key, frozen.secret_key, frozen.token

        return _file_system(self, self.attempt("credentials", keys), os.getpid())

    def attempt(self, what: str, action: Callable[[Any], Result], is_opening: bool = False) -> Result:
        """Run `action` on this process's client, again and again while the trouble is of a kind that passes.

        Pauses are random below a bound that doubles up to 5 s. Credentials that expired are looked up anew, unless the
        store is just being opened.

        Raises:
            FileNotFoundError: no such object.
            PermissionError: no credentials, or not good enough.
            TimeoutError: the trouble did not pass within 120 s.
            OSError: any other refusal. Each names `what` and the cause, in one line.
        """
        began, was_said = time.monotonic(), False
        for number in itertools.count(1):
            try:
                return action(_client(self, os.getpid()))
            except (failures.BotoCoreError, failures.ClientError, ResponseParserError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not _is_still_expired(error):
                    raise
                kind, waited = _kind(error), time.monotonic() - began
                if kind != "passing" and (kind != "renewable" or is_opening):
                    raise _ERRORS[kind](f"{what}: {_cause(error)}") from error
                if waited > (OPENING_S if is_opening else PATIENCE_S):
                    raise _ERRORS[kind](f"{what}: {number} tries in {waited:.0f} s; {_cause(error)}") from error
                if kind == "renewable":
                    _client.cache_clear()
                    _session.cache_clear()
                if waited > _SAID_AFTER_S and not was_said:
                    was_said = True
                    logger.warning("%s: trying again for up to %.0f s: %s", what, PATIENCE_S, _cause(error))
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.1 * 2**number)))
        raise AssertionError


def connect(given: Mapping[str, str]) -> Connection:
    """A connection by what is given; what is not comes from the environment or the profile, and is fixed with that.

    Raises:
        ValueError: no such profile, an endpoint or region that is none, or no region.
    """
    from boto3.session import Session

    try:
        session = Session()
        region = given.get("region") or os.environ.get("AWS_REGION") or session.region_name
        seen: Any = session.client("s3", endpoint_url=given.get("endpoint"), region_name=region).meta
    except (failures.BotoCoreError, ValueError) as error:
        raise ValueError(_one_line(error)) from error
    is_aws = (urlsplit(seen.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if is_aws and region is None:
        raise ValueError("no region; expected AWS_REGION in the environment, or ?region=… after the prefix")
    addressing: Any = given.get("addressing", "virtual" if is_aws else "path")
    checksums: Any = given.get("checksums", seen.config.request_checksum_calculation)
    return Connection(None if is_aws else seen.endpoint_url, region or "us-east-1", addressing, checksums)


def status_of(error: failures.ClientError) -> int:
    """The HTTP status of a refusal: stores agree on it more than on names and messages."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


@functools.cache
def _session(connection: Connection, process: int) -> "Session":
    from boto3.session import Session

    return Session()


@functools.cache
def _client(connection: Connection, process: int) -> Any:
    """For all threads of a process; a forked one makes its own."""
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1},
        request_checksum_calculation=connection.checksums,
        s3={"addressing_style": connection.addressing},
    )
    return _session(connection, process).client(
        "s3", endpoint_url=connection.endpoint, region_name=connection.region, config=config
    )


@functools.lru_cache(maxsize=8)
def _file_system(connection: Connection, keys: tuple[str, str, str | None], process: int) -> pyarrow.fs.S3FileSystem:
    scheme, _, host = (connection.endpoint or "https://").partition("://")
    access_key, secret_key, token = keys
    return pyarrow.fs.S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        session_token=token,
        region=connection.region,
        scheme=scheme,
        endpoint_override=host or None,
        force_virtual_addressing=connection.addressing == "virtual",
        connect_timeout=5,
        request_timeout=60,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=12),
    )


def _kind(error: Exception) -> Kind:
    """What to do about an error: wait, look the credentials up anew, or give up, and as what."""
    if not isinstance(error, failures.ClientError):
        if isinstance(error, failures.NoCredentialsError | failures.PartialCredentialsError):
            return "denied"
        is_renewable = isinstance(error, _RENEWABLE) or _is_still_expired(error)
        return "passing" if isinstance(error, _PASSING) else "renewable" if is_renewable else "other"
    status, code = status_of(error), error.response["Error"].get("Code", "")
    if code in _EXPIRED:
        return "renewable"
    if status in (408, 409, 429) or (status >= 500 and status != 501) or code in _PASSING_CODES:
        return "passing"
    if status in (401, 403):
        return "denied"
    return "missing" if status == 404 and code != "NoSuchBucket" else "other"


def _is_still_expired(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and _STILL_EXPIRED in str(error)


def _cause(error: Exception) -> str:
    if not isinstance(error, failures.ClientError):
        return _one_line(error)
    said = error.response["Error"]
    return _one_line(f"{status_of(error)} {said.get('Code', '')} {said.get('Message') or ''}")


def _one_line(said: object) -> str:
    return " ".join(str(said).split())[:300]
