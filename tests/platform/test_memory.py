"""Memory for data in flight."""

import mmap
import os

from snapvault.platform.memory import page_aligned


def test_a_forked_child_cannot_change_it() -> None:
    """A shared mapping, as mmap makes by itself, would put a child's bytes into its parent's segments."""
    memory = page_aligned(3 << 20)
    memory[:5] = b"mine "
    child = os.fork()
    if not child:
        memory[:5] = b"yours"
        os._exit(0)
    os.waitpid(child, 0)
    assert memory[:5] == b"mine " and len(memory) == 3 << 20
    shared = mmap.mmap(-1, mmap.PAGESIZE)  # what the test would say of the usual kind
    if not os.fork():
        shared[:1] = b"x"
        os._exit(0)
    os.wait()
    assert shared[:1] == b"x"
