"""One repository behind the fault proxy, what can be done with it, and the oracle."""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from unittest import mock

import faultproxy
from battery import model
from battery.oracle import Ledger, Tree, assert_sound, remember
from servers import Place

import snapvault
from snapvault.backend import remote_s3, retry
from snapvault.backend.protocol import Exists, NotFound
from snapvault.backend.retry import RetryPolicy

PATIENT = RetryPolicy(20.0, 20.0, 0.005, 0.05)  # heals whatever passes
BRIEF = RetryPolicy(0.3, 0.3, 0.005, 0.05)  # for what lasts for ever
READ_TIMEOUT = 0.5  # seconds, where the server is made not to answer
KEPT = 3  # snapshots that a life keeps
SMALL_PAGE = 3  # names in one reply of a listing
PAGED = ("cut listing", "omitted page")

_numbers = itertools.count()


@dataclass(frozen=True)
class Case:
    """One operation, and what happens to some of its calls."""

    operation: str
    kind: str
    call: str
    prefix: str
    times: int | None

    def __str__(self) -> str:
        often = {1: "once", None: "for ever"}.get(self.times, f"{self.times}x")
        return f"{self.operation}: {self.kind}, {self.call} {self.prefix or '-'}, {often}"

    def run(self, life: "Life") -> "Outcome":
        """It, and what is to be after it."""
        rule = faultproxy.Rule(self.kind, self.call, self.prefix, self.times)
        return life.run(self.operation, rule, patience=BRIEF if self.times is None else PATIENT)


@dataclass(frozen=True)
class Outcome:
    """Whether anything was spoilt, and the error that the operation ended with."""

    fired: bool
    error: snapvault.SnapvaultError | None


@dataclass
class Life:
    """A repository and its copy in one bucket.  ``trees`` of the ledger are owed."""

    proxy: faultproxy.Proxy
    bucket: str
    options: dict[str, object]
    home: Path
    ledger: Ledger = field(init=False)
    changes: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        model.make_source(self.home / "source")
        self.ledger = Ledger(self.home / "source")
        number = next(_numbers)
        self.url, self.copy = f"{self.bucket}/life-{number}", f"{self.bucket}/copy-{number}"
        self.fresh = f"{self.bucket}/fresh-{number}"
        self._place: Callable[[str], Place] = self._direct
        self.init(self.url)
        self.backup()

    def _direct(self, url: str) -> Place:
        return url, dict(self.options)

    def open(self, url: str = "") -> snapvault.Repository:
        place, options = self._place(url or self.url)
        return snapvault.open(place, keys=model.key, storage_options=options, state=self.home / "state")

    @contextmanager
    def spoilt(self, *rules: faultproxy.Rule, patience: RetryPolicy) -> Iterator[None]:
        """While this is open, everything goes through the proxy, and some of it wrong."""
        timeout = {"read_timeout": READ_TIMEOUT} if any(r.kind == "timeout after" for r in rules) else {}
        with mock.patch.object(retry, "RetryPolicy", lambda: patience), self.proxy.spoiling(*rules):
            self._place = lambda url: self.proxy.through(self._direct(url), **timeout)
            try:
                yield
            finally:
                self._place = self._direct

    # -- what can be done ------------------------------------------------------------------------------------------

    def init(self, url: str) -> None:
        place, options = self._place(url)
        snapvault.init(place, keys=model.key, storage_options=options, chunking=model.CHUNKING).repository.close()

    def init_fresh(self) -> None:
        """A repository of its own; one that an attempt made, whose last reply was lost, is a repository."""
        try:
            self.init(self.fresh)
        except snapvault.InvalidInput as e:
            assert "there is a repository" in e.message
        with self.open(self.fresh) as repo:
            assert repo.role == "owner"

    def backup(self) -> None:
        model.change_source(self.ledger.source, next(self.changes))
        with self.open() as repo:
            self.ledger.backup(repo)

    def prune(self) -> None:
        """Forget what is too much, and remove what nobody needs then; nobody else is alive."""
        with self.open() as repo:
            owed = [s.id for s in repo.snapshots()]
            for old in owed[: max(0, len(owed) - KEPT)]:
                self.ledger.forgotten.add(old)  # before: its reply may be lost
                snapvault.forget_snapshots(repo, [old], undelete_window=timedelta(0))
            plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0))
            result = plan.execute(wait=timedelta(0), lease=timedelta(0))
            assert not result.waits_for and not result.problems, result

    def restore(self) -> None:
        """What comes is right, and what does not come is named."""
        with self.open() as repo:
            newest = list(self.ledger.trees)[-1]
            self.restored(repo, newest, self.ledger.trees[newest])

    def restored(self, repo: snapvault.Repository, snapshot: str, tree: Tree) -> None:
        target = self.home / f"out-{next(_numbers)}"
        result = snapvault.restore(repo, snapshot, target, path=str(self.ledger.source))
        lost = {i.path.removeprefix(str(self.ledger.source) + "/") for i in (*result.lost, *result.issues)}
        came = remember(target) if target.exists() else {}
        if result.status == "ok":
            assert came == tree, "a restore that says ok is not"
        else:
            assert lost, result
            whole = {p: n for p, n in tree.items() if not any(p == x or p.startswith(x + "/") for x in lost)}
            assert lost & {"", str(self.ledger.source)} or all(came.get(p, ())[:1] == n[:1] for p, n in whole.items())
            raise snapvault.Damaged(f"a restore lost {sorted(lost)}")

    def check(self) -> None:
        with self.open() as repo:
            report = snapvault.check(repo, read_data=True)
        if report.status != "ok":
            raise snapvault.Damaged(f"check found {report.problems} and lost {report.lost}")

    def replicate(self) -> None:
        self.replicate_to(self.copy)

    def replicate_to(self, copy: str) -> None:
        result = snapvault.replicate(*(snapvault.Site(*self._place(url)) for url in (self.url, copy)))
        if result.status != "ok":
            raise snapvault.Damaged(f"the copy lacks {result.problems}")

    def begin_copy(self) -> None:
        self.replicate_to(self.fresh + "-copy")

    def prepare(self, operation: str) -> None:
        """See to it that there is something to do."""
        self.fresh = f"{self.bucket}/fresh-{next(_numbers)}"
        if operation in ("prune", "replicate"):
            self.backup()
        while operation == "prune" and len(self.ledger.trees) - len(self.ledger.forgotten) <= KEPT:
            self.backup()

    def run(self, operation: str, *rules: faultproxy.Rule, patience: RetryPolicy = PATIENT) -> Outcome:
        """An operation while these rules hold, and if it ended with an error, once more without them.

        What it ended with is an error that means something to a user; the second time, nothing stands in its way.
        """
        self.prepare(operation)
        error = None
        page = SMALL_PAGE if any(r.kind in PAGED for r in rules) else remote_s3.PAGE
        with mock.patch.object(remote_s3, "PAGE", page), self.spoilt(*rules, patience=patience):
            try:
                getattr(self, operation)()
            except snapvault.SnapvaultError as e:
                assert not isinstance(e, NotFound | Exists), f"{e!r} means nothing to a user"
                error = e
        if error is not None:
            getattr(self, operation)()
        return Outcome(bool(self.proxy.fired), error)

    def verify(self) -> None:
        """The oracle, at both places."""
        with self.open() as repo:
            self.ledger.verify(repo, self.home)
        self.replicate()
        with self.open(self.copy) as repo:
            there = {s.id for s in repo.snapshots()}
            assert set(self.ledger.trees) - self.ledger.forgotten <= there
            for sid in there & set(self.ledger.trees):
                self.restored(repo, sid, self.ledger.trees[sid])
            assert_sound(repo, read_data=True)


OPERATIONS = ("init_fresh", "backup", "prune", "restore", "check", "replicate", "begin_copy")
OFTEN = (1, 3, None)


def possible_cases(life: Life) -> dict[tuple[str, str, str], set[str]]:
    """By kind of fault, method and kind of object: the operations in which that can happen."""
    for _ in range(KEPT):
        life.backup()
    for operation in ("prune", "check", "replicate"):
        getattr(life, operation)()  # so that what follows is how it always is
    found = defaultdict[tuple[str, str, str], set[str]](set)
    for operation in OPERATIONS:
        life.prepare(operation)
        life.proxy.seen.clear()
        with mock.patch.object(remote_s3, "PAGE", SMALL_PAGE), life.spoilt(patience=PATIENT):
            getattr(life, operation)()
        for call, name, kinds in life.proxy.seen:
            for kind in (*faultproxy.BEFORE, *faultproxy.AFTER, *kinds):
                found[kind, call, _kind_of_object(name)].add(operation)
    return found


def _kind_of_object(name: str) -> str:
    """``packs/``, ``local/gc/``, ``config``."""
    if name.startswith("local/probe-"):
        return "local/probe-"
    parts = name.split("/")
    return "/".join(parts[: 2 if parts[0] == "local" else 1]) + ("/" if len(parts) > 1 else "")


def every_case(life: Life, choose: random.Random) -> list[Case]:
    """Each kind at each call, once, three times and for ever; in an operation that is chosen."""
    found = [
        Case(choose.choice(sorted(operations)), *key, times)
        for key, operations in sorted(possible_cases(life).items())
        for times in OFTEN
    ]
    choose.shuffle(found)
    return found


def sample(found: Sequence[Case]) -> list[Case]:
    """Each kind at two methods, if it can happen at two."""
    chosen: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in found:
        if len(chosen[case.kind]) < 2:
            chosen[case.kind].setdefault(case.call, case)
    return [case for cases in chosen.values() for case in cases.values()]
