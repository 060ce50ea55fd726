"""Memory for data in flight."""

import mmap


def page_aligned(size: int) -> mmap.mmap:
    """Page-aligned memory of this process alone; a page takes room once it is written to.

    Not what ``mmap`` gives by itself: that is shared with children, so one that was forked in the middle of a backup
    could write into its parent's segments.
    """
    if hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)
