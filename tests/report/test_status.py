"""The board of a real repository, step by step up the ladder, and what it does when its evidence is tampered with."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import snapvault
from snapvault import Board, Repository, Site
from snapvault.assurance.declaration import declare
from snapvault.assurance.marks import LADDER
from snapvault.foundation.errors import InvalidInput, RoleRequired
from tests.repos import make, save

ORDERS = {
    "rpo": "24h", "rto": "4h", "sites": ["second"], "drill": {"every": "30d"}, "probe": {"kind": "sqlite"},
}  # fmt: skip


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """In which one dataset is declared."""
    repo = make(tmp_path / "repo", state=tmp_path / "state")
    snapvault.import_register(repo, declare({"schema": 1, "datasets": {"orders": ORDERS}}, "the test"))
    return repo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    with closing(sqlite3.connect(tmp_path / "source/orders.db")) as db:
        db.executescript("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2), (3);")
    return tmp_path / "source"


def steps(board: Board) -> str:
    return "".join(board.states[0].steps[step].value[0] for step in LADDER)


def push(repo: Repository, copy: Path, *, read: bool = False) -> None:
    """As ``site push`` does."""
    here, there = Site(repo.url), Site(str(copy))
    snapvault.replicate(here, there)
    with snapvault.open(str(copy), keys=lambda: bytes(range(32))) as at:
        snapvault.attest(at, "second", read=read)
    snapvault.exchange_attestations(here, there)


def drill(repo: Repository, tmp_path: Path, level: str) -> None:
    declared = snapvault.read_register(repo)
    assert declared is not None
    result = snapvault.drill(repo, declared.datasets["orders"], level=level, scratch=tmp_path)
    assert result.status == "ok", result
    snapvault.record_evidence(repo, [result])


def test_up_the_ladder(repo: Repository, source: Path, tmp_path: Path) -> None:
    said = [steps(snapvault.status(repo))]
    save(repo, source, dataset="orders")
    said.append(steps(snapvault.status(repo)))
    push(repo, tmp_path / "copy")
    said.append(steps(snapvault.status(repo)))
    push(repo, tmp_path / "copy", read=True)
    said.append(steps(snapvault.status(repo)))
    drill(repo, tmp_path, "full")
    said.append(steps(snapvault.status(repo)))
    drill(repo, tmp_path, "alive")
    said.append(steps(snapvault.status(repo)))
    assert said == ["gbuuuu", "gguuuu", "ggguuu", "gggguu", "gggggu", "gggggg"]
    board = snapvault.status(repo)
    assert (board.status, board.sentence) == ("ok", "1 of 1 can be brought back within their objectives.")


def test_time_takes_it_down_again(repo: Repository, source: Path, tmp_path: Path) -> None:
    save(repo, source, dataset="orders")
    push(repo, tmp_path / "copy")
    drill(repo, tmp_path, "alive")
    now = datetime.now(UTC)
    assert snapvault.status(repo, time=now).status == "ok"
    later = snapvault.status(repo, time=now + timedelta(days=2))
    assert (later.status, [p.kind for p in later.states[0].problems]) == ("breached", ["stale"])
    much = snapvault.status(repo, time=now + timedelta(days=40))
    assert [p.kind for p in much.states[0].problems] == ["stale", "overdue"]


def test_a_forgotten_snapshot_counts_no_more(repo: Repository, source: Path) -> None:
    snapvault.forget_snapshots(repo, [save(repo, source, dataset="orders").snapshot])
    assert steps(snapvault.status(repo)) == "gbuuuu"


def test_evidence_that_is_gone_is_said_and_nothing_rests_on_it(repo: Repository, source: Path, tmp_path: Path) -> None:
    save(repo, source, dataset="orders")
    drill(repo, tmp_path, "alive")
    assert steps(snapvault.status(repo)) == "gguggg"
    for path in Path(repo.url).glob("evidence/*"):
        path.unlink()
    board = snapvault.status(repo)
    assert (steps(board), board.status) == ("gguuuu", "damaged")
    assert "which this client saw here before, is gone" in board.faults[0]


def test_an_old_keyset_is_said(repo: Repository, tmp_path: Path) -> None:
    """By which whoever was removed since would still be believed."""
    snapvault.add_key(repo, "reader", "ada", file=tmp_path / "ada")
    path = Path(repo.url, "keyset/2")
    assert path.exists()
    path.unlink()
    played = snapvault.open(repo.url, keys=lambda: bytes(range(32)), state=tmp_path / "state")
    board = snapvault.status(played)
    assert board.status == "damaged" and any("an old state is shown" in fault for fault in board.faults)
    assert snapvault.verify_evidence(played).status == "damaged"


def test_a_snapshot_that_cannot_be_read_is_said(repo: Repository, source: Path) -> None:
    snapshot = save(repo, source, dataset="orders").snapshot
    path = Path(repo.url, "snapshots", snapshot)
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    board = snapvault.status(snapvault.open(repo.url, keys=lambda: bytes(range(32))))
    assert (steps(board), board.status) == ("gbuuuu", "damaged")
    assert snapshot in board.faults[0]


def test_since_when_something_is_owed_is_by_all_revisions(repo: Repository) -> None:
    first = snapvault.read_register(repo)
    assert first is not None
    more = {"orders": {**ORDERS, "sites": ["second", "third"]}, "mail": {}}
    snapvault.import_register(repo, declare({"schema": 1, "datasets": more}, "the test"))
    second = snapvault.read_register(repo)
    assert second is not None
    assert second.time > first.time
    assert second.since == {
        ("orders", ""): first.time, ("orders", "second"): first.time, ("orders", "third"): second.time,
        ("mail", ""): second.time,
    }  # fmt: skip
    orders = next(s for s in snapvault.status(repo).states if s.dataset.name == "orders")
    owed = {p.site: p.since for p in orders.problems if p.site}
    assert owed == {"second": first.time, "third": second.time}


def test_sites_of_defaults_and_groups_are_owed_as_well(repo: Repository) -> None:
    content = {
        "schema": 1, "defaults": {"sites": ["a"]}, "groups": {"g": {"sites": ["b"]}, "none": {}},
        "datasets": {
            "orders": {}, "of-group": {"group": "g"}, "own": {"group": "g", "sites": []}, "d": {"group": "none"},
        },
    }  # fmt: skip
    declaration = declare(content, "the test")
    snapvault.import_register(repo, declaration)
    found = snapvault.read_register(repo)
    assert found is not None
    owed = {(name, site) for name, d in declaration.datasets.items() for site in ("", *d.sites)}
    assert found.since.keys() == owed


def test_what_cannot_be_told(tmp_path: Path, repo: Repository) -> None:
    with pytest.raises(InvalidInput, match="nothing is declared"):
        snapvault.status(make(tmp_path / "empty"))
    with pytest.raises(InvalidInput, match="no zone"):
        snapvault.status(repo, time=datetime(2026, 1, 1))
    snapvault.add_key(repo, "writer", "client", file=tmp_path / "client")
    with pytest.raises(RoleRequired):
        snapvault.status(snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "client")))
