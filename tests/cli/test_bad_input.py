"""What goes wrong is a sentence that names the thing and the way out; nothing changes, nobody sees a traceback."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import servers
from blake3 import blake3
from machines import PASSWORD, Done, Machine, by_password, tree_of

from snapvault.cli.storage import options_for

NOBODY = 65534


def save(cli: Machine, *argv: object) -> None:
    done = cli("backup", "--dataset", "d", *argv)
    assert done.code == 0, done


def test_a_wrong_password(cli: Machine, repo: Path, source: Path) -> None:
    by_password(cli).env["SNAPVAULT_PASSWORD"] = "wrong"
    before = tree_of(repo)
    for argv in (["snapshots"], ["backup", "--dataset", "d", source], ["key", "change"]):
        done = cli(*argv)
        assert done.code == 12 and "password" in done.err and "recovery key" in done.err, done
    assert tree_of(repo) == before


def test_an_unfinished_recovery_key(cli: Machine, repo: Path) -> None:
    key = Path(cli.env["SNAPVAULT_KEY_FILE"])
    key.write_text(key.read_text().strip()[:-1])
    done = cli("snapshots")
    assert done.code == 12 and "characters" in done.err and "letter by letter" in done.err


def test_a_key_file_that_is_none(cli: Machine, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert cli("snapshots", "--key-file", tmp_path / "photo.jpg").code == 12
    missing = cli("snapshots", "--key-file", tmp_path / "missing")
    assert missing.code == 2 and str(tmp_path / "missing") in missing.err


@pytest.mark.parametrize("make_folder", [False, True])
def test_no_repository(cli: Machine, tmp_path: Path, make_folder: bool) -> None:
    place = tmp_path / "nothing"
    if make_folder:
        place.mkdir()
    for verb in (["snapshots"], ["check"], ["check", "--no-key"], ["restore", "latest", "-t", tmp_path / "out"]):
        done = cli("-r", place, *verb)
        assert done.code == 10 and str(place) in done.err and "snapvault init" in done.err, done
    assert not (tmp_path / "out").exists() and place.exists() == make_folder


def test_the_repository_is_not_named(cli: Machine) -> None:
    done = cli("snapshots")
    assert done.code == 2 and "-r" in done.err and "SNAPVAULT_REPOSITORY" in done.err


def test_a_repository_is_not_made_twice_nor_over_other_things(cli: Machine, repo: Path, source: Path) -> None:
    before = tree_of(repo), tree_of(source)
    done = cli("init")
    assert done.code == 2 and str(repo) in done.err and "already" in done.err
    done = cli("-r", source, "init")
    assert done.code == 2 and "not empty" in done.err and "a.txt" in done.err
    assert (tree_of(repo), tree_of(source)) == before


def test_a_newer_format(cli: Machine, repo: Path, source: Path) -> None:
    config = bytearray((repo / "config").read_bytes())
    config[5] = 99  # the version of the frame
    (repo / "config").write_bytes(config[:-32] + blake3(config[:-32]).digest())
    before = tree_of(repo)
    for argv in (["snapshots"], ["backup", "--dataset", "d", source]):
        done = cli(*argv)
        assert done.code == 1 and "format version 99" in done.err and "upgrade" in done.err, done
    assert tree_of(repo) == before


@pytest.mark.parametrize("harm", ["truncated", "flipped", "emptied", "deleted"])
@pytest.mark.parametrize("kind", ["config", "keyset", "slots", "sessions", "packs", "index", "snapshots"])
def test_a_damaged_object(cli: Machine, repo: Path, source: Path, tmp_path: Path, kind: str, harm: str) -> None:
    save(cli, source)
    if kind == "slots":
        by_password(cli)  # the recovery key opens the repository without them
    found = [p for p in sorted(repo.rglob("*")) if p.is_file() and p.relative_to(repo).parts[0] == kind]
    for path in found:
        _harm(path, harm)
    before = stored(repo)
    checked = cli("check", "--read-data", "--no-cache")
    if kind == "slots":  # whether it was the password nobody can tell
        said = (
            "no key slot for a password"
            if harm == "deleted"
            else f"{len(found)} cannot be read: slots/{found[0].parent.name}"
        )
        assert said in checked.err and "if it is the right password, copy" in checked.err, checked
    assert checked.code == (12 if kind == "slots" else 20), checked
    if checked.code == 20 and harm != "deleted":
        assert any(p.name[:16] in checked.err + checked.out for p in found), checked
    if kind == "snapshots" and harm != "deleted":
        listed = cli("snapshots", "--no-cache")
        assert listed.code == 20 and found[0].name in listed.err and "0 snapshots" in listed.out, listed
    restored = cli("restore", "d@latest", "-t", tmp_path / "out", "--no-cache")
    if restored.code == 0:  # by what else says the same
        assert tree_of(tmp_path / f"out{source}") == tree_of(source)
    else:
        assert restored.err and restored.code in (2, 10, 12, 20), restored
        assert restored.code != 2 or kind == "snapshots"  # without its slot there is no such snapshot
    assert stored(repo) == before


def test_what_is_lost_with_a_snapshot_that_cannot_be_read_is_said(cli: Machine, repo: Path, source: Path) -> None:
    """No path is known to be lost, since none is known."""
    save(cli, source)
    _harm(next(repo.glob("snapshots/*")), "flipped")
    checked = cli("check", "--no-cache")
    assert checked.code == 20 and "DAMAGED: what a snapshot's record held" in checked.out, checked
    assert re.search(r"'snapvault forget [0-9a-f]{32} --undelete-window 0h' gives up", checked.out), checked
    assert "no path of a snapshot is lost" not in checked.out


def test_an_init_over_data_without_its_keys(cli: Machine, repo: Path, source: Path) -> None:
    """New keys would open none of it, and hide that it is there."""
    save(cli, source)
    shutil.rmtree(repo / "keyset")
    before = tree_of(repo)
    for argv in (["init"], ["init", "--recovery-key-file", "again"]):
        done = cli(*argv)
        assert done.code == 20 and "keysets" in done.err and "check --repair-from SITE" in done.err, done
    by_password(cli)
    done = cli("snapshots")
    assert done.code == 20 and "its data is there" in done.err and "'snapvault init'" not in done.err, done
    assert tree_of(repo) == before


def stored(repo: Path) -> dict[str, bytes]:
    """All objects but the notes that a check takes of what it verified."""
    return {name: data for name, data in tree_of(repo).items() if not name.startswith("local/")}


def _harm(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "deleted":
        path.unlink()
        return
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.chmod(0o600)
    path.write_bytes({"truncated": data[:-10], "flipped": flipped, "emptied": b""}[harm])


def test_check_hides_no_snapshot_behind_another(cli: Machine, repo: Path, source: Path) -> None:
    """Of each that lost something some paths are shown, the newest first; and what to do."""
    for _ in range(3):
        for number in range(20):
            (source / f"file {number}").write_bytes(os.urandom(20_000))
        save(cli, source)
    for pack in repo.glob("packs/*/*"):
        _harm(pack, "flipped")
    snapshots = [item["id"][:8] for item in reversed(cli("snapshots", "--json").records[:-1])]
    checked = cli("check", "--read-data")
    shown = checked.out.partition("Paths that are lost:\n")[2].splitlines()
    assert checked.code == 20 and "lost 22 paths" in checked.out, checked
    assert [line.split(":")[0].strip() for line in shown[:12]] == [s for s in snapshots for _ in range(4)]
    assert "... and 19 more paths" in shown[3], checked
    for pack in repo.glob("packs/*/*"):
        pack.unlink()
    lost = [item for item in cli("check", "--json").records if item.get("kind") == "lost"]
    assert len(lost) == 3 and all(item["folder"] for item in lost)
    checked = cli("check")
    assert "lost entries of 1 folder, whose names are lost with them" in checked.out, checked
    assert "What to do: 'snapvault check --repair-from SITE'" in checked.out
    assert "        or: 'snapvault check --repair --dry-run'" in checked.out


def test_check_names_the_lost_paths_and_restore_saves_the_rest(
    cli: Machine, repo: Path, source: Path, tmp_path: Path
) -> None:
    save(cli, source)
    kept = set(repo.glob("packs/*/*"))
    (source / "folder/big").write_bytes(os.urandom(200_000))
    save(cli, source)
    (pack,) = set(repo.glob("packs/*/*")) - kept
    _harm(pack, "flipped")  # in its middle is the big file
    checked = cli("check", "--read-data")
    assert checked.code == 20 and f":{source}/folder/big: " in checked.out and "DAMAGED" in checked.out, checked
    pruned = cli("prune")
    assert pruned.code == 0 and "1 pack known to be damaged: 'snapvault check' says" in pruned.out, pruned
    restored = cli("restore", "d@latest", "-t", tmp_path / "out")
    assert (
        restored.code == 20 and f"{source}/folder/big: ".lstrip("/") in restored.err and "1 path lost" in restored.err
    )
    (source / "folder/big").unlink()
    assert tree_of(tmp_path / f"out{source}") == tree_of(source)


def test_an_unreadable_file_is_named_and_the_rest_saved(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    for i in range(30):
        (source / f"unreadable {i}\n").write_text("secret")
    for path in (repo, tmp_path, cli.home, tmp_path / "store/recovery.key"):
        subprocess.run(["chown", "-R", str(NOBODY), path], check=True)
    for i in range(30):
        os.chown(source / f"unreadable {i}\n", 0, 0)
        (source / f"unreadable {i}\n").chmod(0o600)
    done = as_nobody(cli, "backup", "--dataset", "d", source)
    assert done.code == 3 and "30 paths left out" in done.err and "partial" in done.out, done
    assert done.err.count("Permission denied") == 10 and "20 more" in done.err  # no wall
    assert "unreadable 1\\n" in done.err  # and no name breaks a line
    listed = cli("snapshots")
    assert "partial" in listed.out
    every = as_nobody(cli, "backup", "--dataset", "d", "--json", source)
    paths = {r["path"] for r in every.records if r["type"] == "error"}
    assert paths == {f"{source}/unreadable {i}\n" for i in range(30)} and every.summary["issues"] == 30
    assert cli("restore", "d@latest", "-t", tmp_path / "out").code == 0
    assert len(tree_of(tmp_path / f"out{source}")) == len(tree_of(source)) - 30


def as_nobody(cli: Machine, *argv: object) -> Done:
    """Run as somebody who is not root."""
    for folder in Path(cli.home).parents:
        if folder != Path("/") and folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return cli.process(*argv, before=user)


def test_a_store_without_permission(cli: Machine, repo: Path, source: Path) -> None:
    save(cli, source)
    before = tree_of(repo)
    Path(cli.env["SNAPVAULT_KEY_FILE"]).chmod(0o644)
    cli.env["HOME"] = "/nonexistent"
    for path in repo.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    repo.chmod(0o700)
    done = as_nobody(cli, "backup", "--dataset", "d", source)
    assert done.code == 1 and str(repo) in done.err and "ermission" in done.err, done
    for path in (repo, *repo.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    done = as_nobody(cli, "backup", "--dataset", "d", source)  # it may read, and not write
    assert done.code == 1 and "ermission" in done.err, done
    assert tree_of(repo) == before


def test_a_target_without_permission(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    subprocess.run(["chmod", "-R", "a+rX", repo.parent], check=True)
    (tmp_path / "closed").mkdir(mode=0o755)
    done = as_nobody(cli, "restore", "d@latest", "--no-cache", "--target", tmp_path / "closed/out")
    assert done.code == 1 and str(tmp_path / "closed") in done.err, done


def test_a_full_disk(cli: Machine, source: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=True)
    try:
        cli.env["SNAPVAULT_REPOSITORY"] = str(disk / "repo")
        assert cli("init").code == 0
        save(cli, source)
        (source / "big").write_bytes(os.urandom(4 << 20))
        done = cli("backup", "--dataset", "d", source)
        assert done.code == 1 and str(disk / "repo") in done.err and "space" in done.err, done
        assert cli("snapshots", "--json").summary["snapshots"] == 1
        assert cli("check", "--read-data").code == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_path_that_vanished(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    before = tree_of(repo)
    done = cli("backup", "--dataset", "d", tmp_path / "vanished")
    assert done.code == 1 and str(tmp_path / "vanished") in done.err, done
    assert not list(repo.glob("packs/*/*")) and cli("snapshots", "--json").summary["snapshots"] == 0
    assert set(before) <= set(tree_of(repo))
    done = cli("backup", "--dataset", "d", source, tmp_path / "vanished")
    assert done.code == 3 and str(tmp_path / "vanished") in done.err, done


def test_a_repository_inside_the_source_is_left_out(cli: Machine, repo: Path, source: Path) -> None:
    inside = source / "repo"
    shutil.move(repo, inside)
    cli.env["SNAPVAULT_REPOSITORY"] = str(inside)
    done = cli("backup", "--dataset", "d", source)
    assert done.code == 0 and str(inside) in done.err and "left out" in done.err, done
    assert f"{source}/repo" not in cli("ls", f"d@latest:{source}").out.splitlines()
    done = cli("backup", "--dataset", "d", inside)
    assert done.code == 2 and "itself" in done.err


def test_an_unreachable_server(cli: Machine, source: Path) -> None:
    port = servers.free_port()
    cli.env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    cli.env |= {"AWS_DEFAULT_REGION": "us-east-1", "SNAPVAULT_REPOSITORY": "s3://bucket/repo"}
    done = cli("snapshots")
    assert done.code == 1 and "s3://bucket/repo" in done.err and "reachable" in done.err, done


def test_credentials_that_fail(cli: Machine, seaweedfs: servers.Fresh, source: Path, tmp_path: Path) -> None:
    url, options = seaweedfs()
    endpoint = options["client_kwargs"]["endpoint_url"]
    cli.env |= {"SNAPVAULT_REPOSITORY": url, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    cli.env |= {"AWS_ACCESS_KEY_ID": servers.KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET}
    assert cli("init").code == 0
    save(cli, source)
    cli.env["AWS_SECRET_ACCESS_KEY"] = "wrong-secret"
    done = cli("snapshots")
    assert done.code == 1 and url in done.err and "credentials" in done.err and "wrong-secret" not in done.err, done
    del cli.env["AWS_SECRET_ACCESS_KEY"], cli.env["AWS_ACCESS_KEY_ID"]
    options_file = tmp_path / "storage.toml"
    options_file.write_text(
        f'schema = 1\n["{url.rpartition("/")[0]}"]\nkey = "test"\nsecret = "{servers.SECRET}"\n'
        f'client_kwargs = {{endpoint_url = "{endpoint}", region_name = "us-east-1"}}\n'
    )
    assert cli("snapshots", "--storage-options", options_file, "--json").summary["snapshots"] == 1


def test_a_folder_that_storage_options_are_said_of(cli: Machine, repo: Path, tmp_path: Path) -> None:
    """Or somebody takes for locked what is not."""
    file = tmp_path / "options.toml"
    file.write_text(f'schema = 1\n["file://{tmp_path}"]\nobject_lock = {{mode = "governance", days = 30}}\n')
    for url in (repo, f"file://{repo}"):
        done = cli("-r", url, "--storage-options", file, "snapshots")
        assert done.code == 2 and "takes no storage options" in done.err, done
    file.unlink()
    done = cli("--storage-options", file, "snapshots")
    assert done.code == 2 and "cannot be read" in done.err, done


def test_the_longest_name_of_storage_options_wins() -> None:
    tables = {"s3://": {"a": 1}, "s3://bucket": {"a": 2}, "s3://bucket/x/": {"a": 3}}
    found = {url: options_for(tables, url) for url in ("s3://bucket/x/y", "s3://bucket", "s3://bucket2", "gs://bucket")}
    assert [o and o["a"] for o in found.values()] == [3, 2, 1, None]


def test_credentials_in_a_url_are_refused(cli: Machine) -> None:
    done = cli("-r", "s3://key:hunter2@bucket/repo", "snapshots")
    assert done.code == 2 and "hunter2" not in done.err, done


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "schema = 1"), ("schema = 1\nkey = 'x'\n", "'key'"), ("schema = ", "TOML"), (None, "cannot be read")],
)
def test_storage_options_that_are_none(cli: Machine, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "storage.toml"
    if content is not None:
        file.write_text(content)
    done = cli("-r", "s3://bucket/repo", "--storage-options", file, "snapshots")
    assert done.code == 2 and said in done.err and str(file) in done.err


@pytest.mark.parametrize(
    "argv",
    [
        ["frobnicate"], ["snapshots", "--frobnicate"], ["ls"], ["backup", "x"], ["backup", "--dataset", "a/b", "x"],
        ["backup", "--dataset", "d"], ["backup", "--dataset", "d", "--stdin", "x"], ["restore", "latest"],
        ["backup", "--dataset", "d", "--from-command"], ["backup", "--dataset", "d", "--stdin-name", "n", "x"],
        ["backup", "--dataset", "d", "--time", "yesterday", "x"], ["backup", "--dataset", "d", "--tag", "", "x"],
        ["backup", "--dataset", "d", "--exclude-larger-than", "big", "x"], ["restore", ":/x", "-t", "y"],
        ["restore", "latest", "--stdout", "--target", "y"], ["restore", "latest", "--stdout", "--delete"],
        ["check", "--read-data=0"], ["check", "--read-data=many"], ["check", "--no-key", "--read-data"],
        ["diff", "latest"], ["key", "add", "x", "--role", "king"], ["key", "remove", "nobody"], ["ls", "latest"],
        ["init", "--chunk-size", "1000"], ["ls", "d@then"], ["restore", "d@latest", "-t", "/", "--delete"],
    ],
)  # fmt: skip
def test_wrong_usage(cli: Machine, repo: Path, argv: list[str]) -> None:
    before = tree_of(repo)
    done = cli(*argv)
    assert done.code == 2 and done.err.startswith("snapvault: ") and done.err.count("\n") <= 3, done
    assert tree_of(repo) == before


def test_names_of_snapshots_that_fit_none_or_several(cli: Machine, repo: Path, source: Path) -> None:
    save(cli, source)
    assert cli("backup", "--dataset", "other", source).code == 0
    done = cli("ls", "latest")
    assert done.code == 2 and "d, other" in done.err
    done = cli("ls", "feedbeef")
    assert done.code == 2 and "feedbeef" in done.err and "(other)" in done.err
    done = cli("ls", "nothere@latest")
    assert done.code == 2 and "nothere" in done.err and "other" in done.err
    done = cli("ls", "d@latest:/nothere")
    assert done.code == 2 and "/nothere" in done.err


def test_passwords_that_are_none(cli: Machine, repo: Path, tmp_path: Path) -> None:
    def refused(said: str, **env: str) -> None:
        cli.env = {k: v for k, v in by_password(cli).env.items() if not k.startswith("SNAPVAULT_PASSWORD")} | env
        done = cli("snapshots")
        assert done.code == 2 and said in done.err, done

    (tmp_path / "empty").touch()
    (tmp_path / "two").write_text("a\nb\n")
    refused("no terminal")
    refused("both given", SNAPVAULT_PASSWORD=PASSWORD, SNAPVAULT_PASSWORD_COMMAND="true")
    refused("holds no password", SNAPVAULT_PASSWORD_FILE=str(tmp_path / "empty"))
    refused("several lines", SNAPVAULT_PASSWORD_FILE=str(tmp_path / "two"))
    refused("cannot be read", SNAPVAULT_PASSWORD_FILE=str(tmp_path / "missing"))
    refused("exit status 1", SNAPVAULT_PASSWORD_COMMAND="false")
    refused("holds no password", SNAPVAULT_PASSWORD_COMMAND="true")
    refused("cannot be started", SNAPVAULT_PASSWORD_COMMAND="/no/such/program")
    refused("words", SNAPVAULT_PASSWORD_COMMAND="echo 'open")


def test_an_error_of_ours_is_a_sentence_too(cli: Machine, repo: Path) -> None:
    """A bug: whatever nobody foresaw."""
    code = (
        "import snapvault.cli.snapshots as s, sys\n"
        "s.list_snapshots = lambda *a, **k: 1 // 0\n"
        "from snapvault.cli.main import main; sys.argv = ['snapvault', 'snapshots']; main()"
    )
    done = cli.python(code)
    assert (
        done.code == 1 and "should not have happened: ZeroDivisionError" in done.err and "SNAPVAULT_DEBUG" in done.err
    )
    cli.env["SNAPVAULT_DEBUG"] = "1"
    shown = cli.python(code, traceback=True)
    assert shown.code == 1 and "Traceback" in shown.err


def test_nobody_reads_the_output(cli: Machine, repo: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for i in range(5000):
        (many / f"{i:0100}").touch()
    save(cli, many)
    process = cli.start("ls", f"d@latest:{many}")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == (b"", 1)


def test_the_output_cannot_be_written(cli: Machine, repo: Path, source: Path) -> None:
    save(cli, source)
    with open("/dev/full", "wb") as full:
        done = cli.process("restore", f"d@latest:{source}/folder/b.txt", "--stdout", stdout=full)
    assert done.code == 1 and "No space left" in done.err
