"""A second site that is full, read-only, dies, or has another time: nothing is acknowledged there that is not there,
and the next run finishes."""

import random
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from battery.crash.test_full_disk import MB, disk, grow
from battery.oracle import Ledger

import snapvault
from snapvault import Control, Repository, Site
from snapvault.backend import retry
from snapvault.backend.retry import RetryPolicy
from snapvault.format import names
from tests.repos import SEED, make, objects
from tests.servers import rclone_sftp


@pytest.fixture
def ledger(own_ram: Path) -> Ledger:
    source = own_ram / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}").write_bytes(random.Random(i).randbytes(MB))
    return Ledger(source)


@pytest.fixture
def repo(own_ram: Path, ledger: Ledger) -> Repository:
    """With one snapshot."""
    made = make(own_ram / "repo")
    ledger.backup(made)
    return made


def at(place: Path) -> Repository:
    return snapvault.open(str(place), keys=lambda: SEED)


def holds_what_it_says(place: Path, own_ram: Path, ledger: Ledger) -> None:
    """Whatever snapshots are listed there restore, and a check says nothing else."""
    copy, listed = at(place), ledger.copy()
    listed.trees = {s.id: ledger.trees[s.id] for s in copy.snapshots()}
    listed.verify(copy, own_ram)
    assert not snapvault.attest(copy, "second").bad


def test_a_full_second_site(repo: Repository, ledger: Ledger, own_ram: Path) -> None:
    with disk(own_ram / "disk", 8 * MB) as small:
        assert snapvault.replicate(repo.url, str(small / "copy")).snapshots == 1
        for i in range(4):
            (ledger.source / f"more {i}").write_bytes(random.Random(10 + i).randbytes(MB))
        ledger.backup(repo)
        with pytest.raises(snapvault.StoreFull, match=re.escape(str(small))):
            snapvault.replicate(repo.url, str(small / "copy"))
        assert len(list(at(small / "copy").snapshots())) == 1
        grow(small, 30 * MB)
        holds_what_it_says(small / "copy", own_ram, ledger)
        there = objects(at(small / "copy"))
        result = snapvault.replicate(repo.url, str(small / "copy"))
        assert (result.status, result.snapshots) == ("ok", 1)
        assert result.packs == sum(n.startswith(names.PACKS) for n in objects(repo).keys() - there.keys())
        ledger.verify(at(small / "copy"), own_ram)


def test_a_second_site_that_became_read_only(repo: Repository, ledger: Ledger, own_ram: Path) -> None:
    with disk(own_ram / "disk", 30 * MB) as small:
        snapvault.replicate(repo.url, str(small / "copy"))
        (ledger.source / "more").write_bytes(random.Random(9).randbytes(MB))
        ledger.backup(repo)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        with pytest.raises(snapvault.StoreDenied, match=r"[Rr]ead-only"):
            snapvault.replicate(repo.url, str(small / "copy"))
        assert len(list(at(small / "copy").snapshots())) == 1
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        assert snapvault.replicate(repo.url, str(small / "copy")).snapshots == 1
        ledger.verify(at(small / "copy"), own_ram)


def test_a_server_that_is_killed_in_the_middle(
    repo: Repository, ledger: Ledger, own_ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it receives packs; what arrived is not sent again to the server that takes its place."""
    monkeypatch.setattr(retry, "RetryPolicy", lambda: RetryPolicy(total=2.0, until_first_success=2.0))
    first, second = own_ram / "first", own_ram / "second"
    first.mkdir()
    second.mkdir()
    server = rclone_sftp(first)
    url, options = server.__enter__()()
    copied: list[int] = []

    def kill(event: snapvault.Event) -> None:
        if event.phase == "copy" and str(event.current).startswith(names.PACKS) and event.done > 1 and not copied:
            copied.append(event.done)
            server.__exit__(None, None, None)

    with pytest.raises(snapvault.StoreUnavailable):
        snapvault.replicate(repo.url, Site(url, options), control=Control(progress=kill))
    assert copied
    place = url.rsplit("/", 2)[1]
    arrived = {str(p.relative_to(first / "data" / place / "repo")) for p in (first / "data").rglob("*") if p.is_file()}
    shutil.move(first / "data", second / "data")
    with rclone_sftp(second) as fresh:
        url, options = fresh()
        url = f"{url.rsplit('/', 2)[0]}/{place}/repo"
        result = snapvault.replicate(repo.url, Site(url, options))
        assert (result.status, result.snapshots) == ("ok", 1)
        assert result.packs == sum(n.startswith(names.PACKS) for n in objects(repo).keys() - arrived)
        ledger.verify(snapvault.open(url, keys=lambda: SEED, storage_options=options), own_ram)


@pytest.mark.parametrize("off", [timedelta(days=-400), timedelta(days=400)])
def test_a_clock_that_is_off(repo: Repository, ledger: Ledger, own_ram: Path, off: timedelta) -> None:
    """Of the machine that replicates: only what it says of the time is wrong, and a future is not believed."""
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        result = snapvault.replicate(repo.url, str(own_ram / "copy"))
        snapvault.attest(at(own_ram / "copy"), "second")
    assert (result.status, result.snapshots) == ("ok", 1)
    ledger.verify(at(own_ram / "copy"), own_ram)
    attested = snapvault.attest(at(own_ram / "copy"), "second")
    newest = snapvault.attestations(at(own_ram / "copy"))[0]
    assert newest.time == attested.time, "one of the future hides nothing of today"
