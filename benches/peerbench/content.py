"""Bytes from a seed: text, records and noise that compress about as such things do."""

import functools
import hashlib
import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

EPOCH = 1_700_000_000  # time stamp of what is made
_WORDS, _PHRASES = 6000, 200_000
_LETTERS = "eeeeeeettttaaaaooooiiinnnsshhrrddlucmfwypvbgkqjxz"
_BLOCK = 1 << 20


class Content:
    """A source of bytes; the same seed gives the same bytes."""

    def __init__(self, seed: str) -> None:
        self.draw = random.Random(seed)
        self.phrases = _language()

    def text(self, size: int) -> bytes:
        """Prose in lines; zstd 3 makes about a third of it."""
        made = "".join(self.draw.choices(self.phrases, k=size // 20 + 1))
        while len(made) < size:
            made += "".join(self.draw.choices(self.phrases, k=100))
        return made[:size].encode()

    def records(self, size: int) -> bytes:
        """Bytes of few values, as in tables of small numbers; about two thirds remain."""
        values = bytes(min(i * i >> 9, 40) * 5 for i in range(256))
        return self.draw.randbytes(size).translate(values)

    def noise(self, size: int) -> bytes:
        """What no compressor makes smaller."""
        return self.draw.randbytes(size)

    def mixed(self, size: int) -> bytes:
        """One of the three, text for the most part."""
        return self.draw.choices((self.text, self.records, self.noise), weights=(80, 14, 6))[0](size)

    def edited(self, data: bytes) -> bytes:
        """The same with one place overwritten or a little inserted."""
        at = self.draw.randrange(len(data) + 1)
        new = self.text(self.draw.randrange(20, 2000))
        return data[:at] + new + data[at + (len(new) if self.draw.random() < 0.5 else 0) :]


@functools.cache
def _language() -> list[str]:
    """Phrases, far more than fit into a compressor's window: it sees words again, hardly ever phrases."""
    draw = random.Random("language")
    words = ["".join(draw.choices(_LETTERS, k=draw.randrange(2, 11))) for _ in range(_WORDS)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(_WORDS)))  # Zipf's law
    drawn = iter(draw.choices(words, cum_weights=weights, k=7 * _PHRASES))
    ends = draw.choices((" ", ", ", "\n", ".\n"), k=_PHRASES)
    return [" ".join(itertools.islice(drawn, 3 + i % 5)) + end for i, end in enumerate(ends)]


def write(path: Path, *parts: bytes) -> None:
    """A file, with the folders above it and a fixed time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(parts)
    stamp(path)


def stamp(path: Path) -> None:
    os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def stamp_folders(root: Path) -> None:
    """Fixed time stamps for all folders, once nothing is added to them any more."""
    for here, _, _ in os.walk(root, topdown=False):
        stamp(Path(here))


def blocks(size: int) -> Iterator[int]:
    """``size`` in pieces of at most a block."""
    while size > 0:
        yield min(size, _BLOCK)
        size -= _BLOCK


def digest(root: Path, paths: list[str]) -> str:
    """One short hash over names and contents, to see whether two machines measured the same."""
    total = hashlib.blake2b(digest_size=8)
    for path in paths:
        total.update(os.path.relpath(path, root).encode(errors="surrogateescape"))
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()
