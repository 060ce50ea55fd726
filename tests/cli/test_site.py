"""``snapvault site``: what it says, and how it refuses."""

import json
import os
import shutil
from pathlib import Path

import pytest
from machines import Machine, tree_of
from repos import flipped

from snapvault.format import names


@pytest.fixture
def copied(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> Path:
    """A repository with a snapshot and a copy."""
    assert cli("backup", "--dataset", "d", source).code == 0
    assert cli("site", "add", "second", tmp_path / "copy").code == 0
    done = cli("site", "push", "second")
    assert done.code == 0 and "second attested by owner: 1 snapshot complete" in done.out, done
    return tmp_path / "copy"


def test_nothing_is_known_of_a_site_before_the_first_push(cli: Machine, repo: Path, source: Path) -> None:
    assert "There are no sites." in cli("site", "list").out
    cli("backup", "--dataset", "d", source)
    cli("site", "add", "second", "s3://bucket/repo")
    done = cli("site", "list")
    assert done.code == 0 and "never" in done.out and "0 of 1" in done.out and "unanswered since" in done.out


def test_what_is_no_site(cli: Machine, repo: Path) -> None:
    assert "known are: none" in cli("site", "push", "second").err
    done = cli("site", "add", "a b", "/mnt/x")
    assert done.code == 2 and "no name for a site" in done.err
    assert cli("site", "remove", "second").code == 2


def test_where_the_repository_was_copies_are_named(cli: Machine, copied: Path, repo: Path, tmp_path: Path) -> None:
    """Nobody who has lost it is told to make a new one."""
    repo.rename(tmp_path / "away")
    every = "snapshots", "status", "drill d --site second", "site push second", "site push --all", "site list"
    for words in (*every, "check --no-key", "check --repair-from second"):
        done = cli(*words.split())
        assert done.code == 10 and f"copies that are known: second at {copied};" in done.err, done
        assert "init" not in done.err
    done = cli("-r", tmp_path / "elsewhere", "snapshots")
    assert done.code == 10 and "init" in done.err and "second" not in done.err


@pytest.mark.parametrize("lost", [["config"], ["config", "keyset"]])
def test_a_repository_that_does_not_say_whose_it_is_is_mended_from_a_site_by_name(
    cli: Machine, copied: Path, repo: Path, source: Path, tmp_path: Path, lost: list[str]
) -> None:
    for name in lost:
        shutil.rmtree(repo / name) if (repo / name).is_dir() else (repo / name).unlink()
    done = cli("snapshots")
    assert done.code in (10, 20) and ("check --repair-from" in done.err or f"second at {copied}" in done.err), done
    if lost == ["config"]:
        assert f"copies that are known: second at {copied};" in done.err, done
        for words in (["check", "--no-key"], ["check", "--no-key", "--attest", "second"]):
            assert cli(*words).err.count("copies that are known") == 1
    mended = cli("check", "--repair-from", "second")
    assert mended.code == 0 and f"mended {', '.join(lost)}" in mended.out, mended
    assert cli("snapshots").code == 0 and cli("check").code == 0


def test_after_a_push_to_all_sites_a_restore_still_finds_them(
    cli: Machine, copied: Path, repo: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "register.toml").write_text('schema = 1\n[datasets.d]\nsites = ["second"]\n')
    assert cli("register", "import", tmp_path / "register.toml").code == 0
    shutil.rmtree(copied)  # so that it is made, and remembered, by this push
    assert cli("site", "remove", "second").code == 0 and cli("site", "add", "second", copied).code == 0
    assert cli("site", "push", "--all").code == 0
    repo.rename(tmp_path / "away")
    done = cli("restore", "d@latest", "--target", tmp_path / "back")
    assert done.code == 0 and f"read at {copied}" in done.err + done.out, done


def test_a_push_to_the_place_itself_once_it_was_promoted(cli: Machine, copied: Path) -> None:
    assert cli("-r", copied, "site", "promote").code == 0
    done = cli("-r", copied, "site", "push", "second")
    assert done.code == 2 and "is the same place" in done.err, done


def test_one_place_has_one_name(cli: Machine, copied: Path, repo: Path, tmp_path: Path) -> None:
    """Or one copy would be counted as two, and one site's word as another's."""
    (tmp_path / "link").symlink_to(copied)
    for url in (copied, f"{copied}/", copied.as_uri(), tmp_path / "link"):
        done = cli("site", "add", "third", url)
        assert done.code == 2 and "is second" in done.err, done
    done = cli("site", "add", "third", repo)
    assert done.code == 2 and "is the repository itself" in done.err
    assert cli("site", "add", "second", copied.as_uri()).code == 0  # what is known already
    done = cli("site", "add", "second", tmp_path / "new")
    assert done.code == 2 and f"second is {copied}" in done.err and "a new place needs a new name" in done.err
    done = cli("site", "add", "fourth", "")
    assert done.code == 2 and "empty" in done.err
    assert [line.split()[0] for line in cli("site", "list").out.splitlines()[1:]] == ["second"]


def test_a_wrong_password_copies_nothing(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    cli("backup", "--dataset", "d", source)
    cli("site", "add", "second", tmp_path / "copy")
    cli.env = {k: v for k, v in cli.env.items() if k != "SNAPVAULT_KEY_FILE"} | {"SNAPVAULT_PASSWORD": "wrong"}
    done = cli("site", "push", "second")
    assert done.code == 12 and not (tmp_path / "copy").exists()
    done = cli("site", "push", "second", "--no-attest")
    assert done.code == 0 and "not attested" in done.out


def test_a_pull_without_a_key(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    cli("backup", "--dataset", "d", source)
    cli.env = {k: v for k, v in cli.env.items() if k not in ("SNAPVAULT_KEY_FILE", "SNAPVAULT_PASSWORD")}
    done = cli("-r", tmp_path / "copy", "site", "pull", repo)
    assert done.code == 0 and "1 snapshot more" in done.out and "not attested" in done.out


def test_a_pull_under_another_name_copies_nothing(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    cli("key", "add", "second", "--role", "site", "--file", tmp_path / "site.key")
    argv = ("-r", tmp_path / "copy", "--key-file", tmp_path / "site.key", "site", "pull", repo, "--as")
    done = cli(*argv, "third")
    assert done.code == 2 and "signs for the site of its own name" in done.err and "second" in done.err, done
    assert not (tmp_path / "copy").exists()
    assert cli(*argv, "second").code == 0


def test_a_pull_with_a_key_needs_a_name(cli: Machine, repo: Path, tmp_path: Path) -> None:
    done = cli("-r", tmp_path / "copy", "site", "pull", repo)
    assert done.code == 2 and "--as NAME" in done.err and not (tmp_path / "copy").exists()


def test_damage_at_the_source(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    cli("backup", "--dataset", "d", source)
    cli("site", "add", "second", tmp_path / "copy")
    pack = next(p for p in Path(repo, names.PACKS).rglob("*") if p.is_file())
    os.truncate(pack, pack.stat().st_size - 1)
    done = cli("site", "push", "second")
    assert done.code == 20 and pack.name in done.err and "0 snapshots complete; 1 object missing or damaged" in done.out


def test_a_restore_goes_on_at_a_known_site(cli: Machine, copied: Path, repo: Path, tmp_path: Path) -> None:
    shutil.rmtree(repo)
    done = cli("restore", "d@latest", "--target", tmp_path / "out")
    assert done.code == 0 and f"read at {copied}" in done.err and f"read at {repo}; it did not answer" in done.err, done
    assert cli("ls", "d@latest").code == 0
    assert cli("restore", "d@latest", "--target", tmp_path / "alone", "--no-sites").code == 10
    lines = [
        json.loads(line) for line in cli("--json", "restore", "d@latest", "--target", tmp_path / "two").out.splitlines()
    ]
    assert [p["place"] for p in lines[-1]["came_from"]] == [str(copied), str(repo)]


def test_what_a_check_advises_mends_what_is_gone(cli: Machine, copied: Path, repo: Path) -> None:
    """By the name of the site that this machine knows; an index and a pack at once."""
    before = tree_of(repo / "packs") | tree_of(repo / "index")
    for kind in ("packs", "index"):
        shutil.rmtree(repo / kind)
    checked = cli("check", "--no-cache")
    assert checked.code == 20 and "What to do: 'snapvault check --repair-from second'" in checked.out, checked
    assert "gives up a snapshot" not in checked.out, checked  # its record is there
    mended = cli("check", "--repair-from", "second")
    assert mended.code == 0 and "mended packs/" in mended.out and "nothing else is damaged, or missing" in mended.out
    assert tree_of(repo / "packs") | tree_of(repo / "index") == before
    assert cli("check", "--read-data").code == 0


def test_a_push_says_that_the_site_is_damaged(cli: Machine, copied: Path) -> None:
    pack = next(copied.glob("packs/*/*"))
    pack.write_bytes(flipped(pack.read_bytes()))
    assert cli("-r", copied, "check", "--no-key", "--attest", "second").code == 20
    done = cli("site", "push", "second", "--json")
    told = cli("site", "push", "second")
    assert done.code == 20 and done.summary["status"] == "damaged" and done.summary["attestation"]["bad"], done
    assert "missing or damaged there: " in told.out and "check --repair-from second" in told.out, told


def test_only_a_scrub_is_attested(cli: Machine, repo: Path) -> None:
    done = cli("check", "--attest", "second")
    assert done.code == 2 and "--no-key" in done.err


def test_a_site_that_is_gone(cli: Machine, copied: Path) -> None:
    assert cli("site", "remove", "second").code == 0
    assert copied.is_dir() and "There are no sites." in cli("site", "list").out


def test_a_copy_that_was_promoted_owes_itself_nothing(cli: Machine, copied: Path, source: Path) -> None:
    assert cli("-r", copied, "site", "promote").code == 0
    assert cli("-r", copied, "backup", "--dataset", "d", source).code == 0
    told = cli("-r", copied, "site", "list")
    assert "is this place" in told.out and "unanswered" not in told.out
    (listed, _) = cli("-r", copied, "site", "list", "--json").records
    assert (listed["here"], listed["unanswered"]) == (True, 1)
    (listed, _) = cli("site", "list", "--json").records
    assert listed["here"] is False
