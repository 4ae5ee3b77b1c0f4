"""Fixtures that several test files share: one Ray and one sandbox for the session, a store of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retort.solvers.zygote import Sandbox
from retort.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests that run what a model might have written."""
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real Ray on this machine, with the settings that the jobs use."""
    import ray

    from retort.command import start_ray

    start_ray(open_store("/tmp"))
    yield
    ray.shutdown()
