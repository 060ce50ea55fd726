"""Maps of sparse files."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapvault.platform.sparse import data_extents

_BLOCK = 4096


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    blocks=st.sets(st.integers(0, 40), max_size=25),
    tail=st.integers(0, _BLOCK - 1),
    limit=st.sampled_from([1, 2, 3, 100]),
)
def test_what_lies_outside_of_the_map_is_zero(tmp_path: Path, blocks: set[int], tail: int, limit: int) -> None:
    size = 41 * _BLOCK + tail
    with open(tmp_path / "f", "wb") as f:
        for block in blocks:
            f.seek(block * _BLOCK)
            f.write(bytes([block + 1]) * _BLOCK)
        f.truncate(size)
    content = (tmp_path / "f").read_bytes()
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        extents = data_extents(fd, size, limit)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    finally:
        os.close(fd)
    rebuilt = bytearray(size)
    for offset, length in extents if extents is not None else ((0, size),):
        assert length > 0
        rebuilt[offset : offset + length] = content[offset : offset + length]
    assert rebuilt == content
    if extents is not None:
        assert len(extents) <= limit
        assert all(a + n < b for (a, n), (b, _) in pairwise(extents))
        if limit == 100:
            assert sum(n for _, n in extents) == len(blocks) * _BLOCK


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 10_000])
def test_a_file_without_holes_has_no_map(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(data)
    with open(tmp_path / "f", "rb") as f:
        assert data_extents(f.fileno(), len(data)) is None
