"""Files with several names: in a snapshot, and in the folder that it is compared with or restored into."""

import os

from snapvault.format.tree import Node, NodeKind
from snapvault.operations.visit import Visited


class HardLinks:
    """Which name of a file came first, and to which file of the snapshot one in the target belongs."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], bytes] = {}
        self._claimed: dict[tuple[int, int], object] = {}

    def first(self, at: Visited) -> bytes | None:
        """The name under which the same file was visited before; None: it is this one.

        In the order of the visit the first time; after that by any thread.
        """
        if at.node.link is None or at.node.kind == NodeKind.DIRECTORY:
            return None
        first = self._first.setdefault(at.node.link, at.path)
        return None if first == at.path else first

    def claim(self, path: bytes, node: Node, there: os.stat_result) -> bool:
        """False if another file of the snapshot has this very file in the target: the two have to be parted.

        To be asked in the order of the visit.
        """
        if there.st_nlink == 1:
            return True
        own = node.link or path
        return self._claimed.setdefault((there.st_dev, there.st_ino), own) == own
