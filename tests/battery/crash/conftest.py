"""Fixtures of the crash tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from battery import model

RAM = Path("/dev/shm")  # thousands of small trees are restored and compared: no test of theirs needs a disk


@contextmanager
def _in_memory() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="snapvault-", dir=RAM if RAM.is_dir() else None))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def ram() -> Iterator[Path]:
    """A folder in memory."""
    with _in_memory() as place:
        yield place


@pytest.fixture
def own_ram() -> Iterator[Path]:
    """One for each test: on a busy disk the commands spend minutes in fsync."""
    with _in_memory() as place:
        yield place


@pytest.fixture(autouse=True)
def small_parts() -> Iterator[None]:
    """Everything is cut small, so that a small run has several of each object."""
    with model.small_parts():
        yield
