"""Trees: the entries of a folder to bytes and back."""

import os
from typing import Any

from snapvault.format.tree import Content, Node, NodeKind, decode_tree, encode_tree

ENTRIES = 2000


def nodes() -> list[Node]:
    """Files of one chunk each."""
    return [
        Node(
            b"file-%06d.c" % i, NodeKind.FILE, 0o644, 1000, 1000, 1_700_000_000_123_456_789 + i,
            1_700_000_001_000_000_000 + i, 5_000_000 + i, 7000 + i, Content(0, os.urandom(32)),
        )
        for i in range(ENTRIES)
    ]  # fmt: skip


def test_encode(meter: Any) -> None:
    made = nodes()
    meter.rate(lambda: encode_tree(made, {1000: "me"}, {1000: "us"}), ENTRIES / 1e6, "million entries")


def test_decode(meter: Any) -> None:
    data = encode_tree(nodes(), {1000: "me"}, {1000: "us"})
    assert len(decode_tree(data).nodes) == ENTRIES
    meter.rate(lambda: decode_tree(data), ENTRIES / 1e6, "million entries")
