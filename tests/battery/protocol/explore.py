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


def tell(model: Model, parent: dict[State, State | None], s: State) -> list[str]:
    lines = ["=> " + (model.broken(s) or "from here somebody alive can never finish")]
    while (p := parent[s]) is not None:
        who, what = next((who, what) for who, what, n in model.steps(p) if n == s)
        old, new = model.words(p), model.words(s)
        lines.append(f"{who:>10}: {what.lstrip('!'):<53}" + "; ".join(f"{k} {new[k]}" for k in new if new[k] != old[k]))
        s = p
    return lines[::-1]
