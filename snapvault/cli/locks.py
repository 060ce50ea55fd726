"""What there is to say of objects that the store keeps locked."""

import snapvault
from snapvault.cli.text import local_time
from snapvault.foundation.words import count


def lock_lines(lock: "snapvault.LockReport | None") -> list[str]:
    """For people; nothing where no lock was asked for."""
    if lock is None:
        return []
    lines, days = [], "1 day" if lock.days == 1 else f"{lock.days:,} days"
    if lock.until is not None:
        lines.append(f"locked until {local_time(lock.until)} at least ({lock.mode}): {count(lock.objects, 'object')}")
    more = lock.unlocked + lock.unknown + lock.refused > len(lock.examples)
    some = f" ({', '.join(lock.examples)}{', ...' if more else ''})"
    if lock.unlocked:
        lines.append(f"NOT LOCKED: {lock.unlocked:,} of {count(lock.objects, 'object')}{some}")
    if lock.unknown:
        lines.append(f"it cannot be seen whether {lock.unknown:,} of {count(lock.objects, 'object')} are locked{some}")
    if lock.refused:
        lines.append(f"the store refused to extend the lock of {count(lock.refused, 'object')}{some}")
    if lock.extended:
        lines.append(f"the lock of {count(lock.extended, 'object')} was extended to {days} from now")
    return lines
