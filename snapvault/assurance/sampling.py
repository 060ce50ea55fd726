"""Samples: a share of the files of a dataset, another one each time, until all were drilled."""

from blake3 import blake3

from snapvault.operations.selection import Selection

PARTS = 10  # so many drills of the level ``sample`` cover every file


class Sample(Selection):
    """The files of one part.  Which part a file is in depends on the seed and its path alone, so it stays there."""

    def __init__(self, seed: str, part: int, parts: int = PARTS) -> None:
        super().__init__()
        self.all, self.narrow = False, True
        self._seed, self.part, self.parts = seed, part, parts

    def included(self, path: bytes, is_folder: bool) -> bool:
        """See Selection; folders are taken for what is in them."""
        return not is_folder and scatter(self._seed, path) % self.parts == self.part


def scatter(seed: str, path: bytes) -> int:
    """A number that looks random, and is the same each time."""
    return int.from_bytes(blake3(seed.encode() + b"\0" + path).digest(length=8), "big")
