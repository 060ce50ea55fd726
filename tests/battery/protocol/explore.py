"""Every reachable state of a small model, breadth first; a violation comes with the shortest way there."""

from collections import deque
from typing import NamedTuple, Protocol

State = bytes
Step = tuple[str, str, State]  # who, does what, leading to; progress may not rely on what starts with "!"


class Model(Protocol):
    def first(self) -> State: ...
    def steps(self, s: State) -> list[Step]: ...
    def broken(self, s: State) -> str: ...  # why this state must not be, or ""
    def finished(self, s: State) -> bool: ...  # every live process has ended
    def words(self, s: State) -> dict[str, str]: ...  # what a trace shows of a state


class Result(NamedTuple):
    verdict: str  # ok, violation, stuck (somebody alive can never finish), open (limit reached)
    states: int
    trace: list[str]


def explore(model: Model, limit: int, progress: bool = False) -> Result:
    first = model.first()
    parent: dict[State, State | None] = {first: None}  # in breadth-first order
    back: dict[State, list[State]] = {}
    queue = deque([first])
    while queue:
        s = queue.popleft()
        for _, what, n in model.steps(s):
            if progress and what[0] != "!":
                back.setdefault(n, []).append(s)
            if n not in parent:
                parent[n] = s
                if model.broken(n):
                    return Result("violation", len(parent), tell(model, parent, n))
                queue.append(n)
        if len(parent) > limit:
            return Result("open", len(parent), [])
    if progress:  # is a finished state in reach from everywhere, without the "!" steps?
        todo = [s for s in parent if model.finished(s)]
        good = set(todo)
        while todo:
            new = [p for p in back.get(todo.pop(), ()) if p not in good]
            good.update(new)
            todo += new
        for s in parent:
            if s not in good:
                return Result("stuck", len(parent), tell(model, parent, s))
    return Result("ok", len(parent), [])


def sweep(model: Model, limit: int) -> Result:
    """The same for more states than memory holds: of each only a 64-bit hash is kept, so a violation has no trace.

    Two of n states share a hash, and one of them is not looked at, with a probability of n^2 / 2^65: of 10^8
    states 0.0003 (hash compaction, Wolper and Leroy 1993).
    """
    first = model.first()
    seen, queue = {hash(first)}, deque([first])
    while queue:
        for _, _, n in model.steps(queue.popleft()):
            if (h := hash(n)) not in seen:
                seen.add(h)
                if why := model.broken(n):
                    return Result("violation", len(seen), [why, str(model.words(n))])
                queue.append(n)
        if len(seen) > limit:
            return Result("open", len(seen), [])
    return Result("ok", len(seen), [])


def tell(model: Model, parent: dict[State, State | None], s: State) -> list[str]:
    lines = ["=> " + (model.broken(s) or "from here somebody alive can never finish")]
    while (p := parent[s]) is not None:
        who, what = next((who, what) for who, what, n in model.steps(p) if n == s)
        old, new = model.words(p), model.words(s)
        lines.append(f"{who:>10}: {what.lstrip('!'):<53}" + "; ".join(f"{k} {new[k]}" for k in new if new[k] != old[k]))
        s = p
    return lines[::-1]
