"""A second machine that holds nothing but its own client key: it backs up, deduplicates, and can open nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import Machine, tree_of

ABOVE = 4096  # bytes of records of the folders above the source, which change while others work there


@pytest.fixture
def client(cli: Machine, repo: Path, new_machine: Callable[[str], Machine], tmp_path: Path) -> Machine:
    """A machine that was given a writer's key, and neither a password nor anything in its home."""
    assert cli("key", "add", "laptop", "--role", "writer", "--file", tmp_path / "laptop.key").code == 0
    machine = new_machine("laptop")
    shutil.move(tmp_path / "laptop.key", machine.home / "client.key")
    del machine.env["SNAPVAULT_PASSWORD"]
    machine.env |= {"SNAPVAULT_REPOSITORY": str(repo), "SNAPVAULT_KEY_FILE": str(machine.home / "client.key")}
    return machine


def backup(machine: Machine, *argv: object) -> dict[str, object]:
    done = machine("backup", "--dataset", "laptop", "--json", *argv)
    assert done.code == 0, done
    return done.summary


def test_it_backs_up_and_the_owner_restores(client: Machine, cli: Machine, source: Path, tmp_path: Path) -> None:
    backup(client, source)
    assert cli("restore", "laptop@latest", "-t", tmp_path / "out", "--verify").code == 0
    assert tree_of(tmp_path / f"out{source}") == tree_of(source)
    assert cli("check", "--read-data").code == 0


def test_it_stores_nothing_twice_also_without_its_cache(client: Machine, source: Path) -> None:
    (source / "big").write_bytes(os.urandom(1 << 20))
    assert backup(client, source)["bytes_new"] > 1 << 20
    assert backup(client, source)["bytes_new"] < ABOVE
    shutil.rmtree(client.home / ".cache")
    third = backup(client, source)
    assert third["bytes_new"] < ABOVE and third["bytes_read"] == sum(map(len, _files(source)))


def _files(source: Path) -> list[bytes]:
    return [p.read_bytes() for p in source.rglob("*") if p.is_file() and not p.is_symlink()]


@pytest.mark.parametrize(
    "argv",
    [
        ["snapshots"], ["ls", "laptop@latest"], ["ls", "no-such-name"], ["diff", "latest", "latest"], ["check"],
        ["restore", "laptop@latest", "--target", "out"], ["restore", "laptop@latest:/x", "--stdout"],
        ["forget", "laptop@latest"], ["key", "add", "mine", "--role", "reader", "--file", "mine.key"],
        ["key", "remove", "owner"], ["key", "rotate"],
    ],
)  # fmt: skip
def test_it_can_open_and_change_nothing(
    client: Machine, repo: Path, source: Path, tmp_path: Path, argv: list[str]
) -> None:
    backup(client, source)
    before = tree_of(repo)
    done = client(*[a if a not in ("out", "mine.key") else tmp_path / a for a in argv])
    assert done.code == 13 and "writer" in done.err, done
    assert tree_of(repo) == before
    assert not (tmp_path / "out").exists() and not (tmp_path / "mine.key").exists()


def test_a_scrub_it_may(client: Machine) -> None:
    assert client("check", "--no-key").code == 0


def test_a_removed_key_stores_nothing_more(client: Machine, cli: Machine, source: Path) -> None:
    backup(client, source)
    assert cli("key", "remove", "laptop").code == 0
    done = client("backup", "--dataset", "laptop", source)
    assert done.code in (12, 13) and "Traceback" not in done.err
    assert cli("snapshots", "--json").summary["snapshots"] == 1  # what it stored before stays


def test_a_key_of_another_repository(client: Machine, cli: Machine, source: Path, tmp_path: Path) -> None:
    cli.env.pop("SNAPVAULT_KEY_FILE")
    assert cli("-r", tmp_path / "other", "init").code == 0
    done = client("-r", tmp_path / "other", "backup", "--dataset", "laptop", source)
    assert done.code == 12, done
