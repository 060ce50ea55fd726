"""What there is to say of objects that the store keeps locked."""

import snapvault
from snapvault.cli.text import local_time
from snapvault.foundation.words import count


def lock_lines(lock: "snapvault.LockReport | None") -> list[str]:
    """For people; nothing where no lock was asked for."""
    if lock is None:
        return []
    lines = []
    if lock.until is not None:
        lines.append(f"locked until {local_time(lock.until)} at least ({lock.mode}): {count(lock.objects, 'object')}")
    some = f" ({', '.join(lock.examples)}{', ...' if lock.unlocked + lock.unknown + lock.refused > 5 else ''})"
    if lock.unlocked:
        lines.append(f"NOT LOCKED: {lock.unlocked:,} of {count(lock.objects, 'object')}{some}")
    if lock.unknown:
        lines.append(f"it cannot be seen whether {count(lock.unknown, 'object')} of {lock.objects:,} is locked{some}")
    if lock.refused:
        lines.append(f"the store refused to extend the lock of {count(lock.refused, 'object')}{some}")
    if lock.extended:
        lines.append(f"the lock of {count(lock.extended, 'object')} was extended to {count(lock.days, 'day')} from now")
    return lines
