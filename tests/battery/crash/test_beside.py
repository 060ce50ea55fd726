"""Somebody else works on the repository between any two calls of an operation, and it neither fails nor cries wolf."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from battery import killing, model
from battery.beside import Between
from battery.oracle import Ledger

import snapvault
from snapvault.backend.protocol import Backend

Operation = Callable[[Backend, Ledger, Path], object]


@pytest.fixture(scope="module")
def base(ram: Path) -> killing.Base:
    return killing.make_base(ram)


def back_up(backend: Backend, ledger: Ledger, _: Path) -> None:
    with model.opened(backend) as repo:
        ledger.backup(repo, control=model.ONE_THREAD)


def back_up_other(backend: Backend, ledger: Ledger, _: Path) -> None:
    """Other data of another dataset: its packs, index and snapshot are new."""
    with model.opened(backend) as repo, repo.writer("other") as writer, writer.open("/file") as file:
        file.write(bytes(range(256)) * 100)


def rotate(backend: Backend, ledger: Ledger, _: Path) -> None:
    with model.opened(backend) as repo:
        snapvault.rotate(repo, new_recovery_key=True)


def forget(backend: Backend, ledger: Ledger, _: Path) -> None:
    with model.opened(backend) as repo:
        ledger.forget(repo, next(iter(ledger.trees)))


def check(backend: Backend, ledger: Ledger, _: Path) -> None:
    with model.opened(backend) as repo:
        report = snapvault.check(repo, read_data=True)
        assert report.status == "ok", (report.problems, report.lost)


def restore(backend: Backend, ledger: Ledger, scratch: Path) -> None:
    with model.opened(backend) as repo:
        ledger.copy().verify(repo, scratch, check=False)


def cases(*pairs: tuple[Operation, Operation]) -> Any:
    return pytest.mark.parametrize(("one", "other"), pairs, ids=[f"{a.__name__}, {b.__name__}" for a, b in pairs])


@cases(
    (check, back_up_other), (check, rotate), (check, forget), (back_up, back_up_other), (back_up, rotate),
    (back_up, forget), (restore, back_up_other), (restore, rotate),
)  # fmt: skip
def test_between_any_two_calls(base: killing.Base, one: Operation, other: Operation) -> None:
    at, total = 1, 1
    while at <= total:
        store, ledger = base.store(), base.ledger.copy()
        between = Between(store, at, lambda store=store, ledger=ledger: other(store, ledger, base.scratch))
        one(between, ledger, base.scratch)
        total, at = between.count, at + 1
        killing.verify(store, base, ledger)
    assert at > 20


def test_two_on_one_handle(base: killing.Base) -> None:
    """The second operation runs on the same open repository, as in a service with threads."""
    at, total = 1, 1
    while at <= total:
        store = base.store()
        handles: list[snapvault.Repository] = []

        def act(handles: list[snapvault.Repository] = handles) -> None:
            with handles[0].writer("other") as writer, writer.open("/file") as file:
                file.write(bytes(range(256)) * 100)

        between = Between(store, at + 10, act)
        with model.served_by(between):
            handles.append(snapvault.open("memory://model", keys=model.key, state=base.scratch / f"state-{at}"))
        assert between.count <= 10
        between.count = 10
        report = snapvault.check(handles[0])
        assert report.status == "ok", (report.problems, report.lost)
        total, at = between.count - 10, at + 1
        handles[0].close()
    assert at > 20
