"""Every verb does its work, from wherever its options come."""

import io
import os
import re
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from machines import PASSWORD, Machine, by_password, tree_of

import snapvault
from snapvault.format.session import GC
from snapvault.foundation.ids import SessionId
from snapvault.repository.session import Session

VERBS = ("init", "backup", "snapshots", "ls", "diff", "restore", "check", "forget", "prune", "key")


def save(cli: Machine, *argv: object, **options: bytes) -> str:
    """Back up; the snapshot's id."""
    done = cli("backup", "--json", "--dataset", "d", *argv, **options)
    assert done.code == 0, done
    return str(done.summary["snapshot"])


def test_the_main_job_of_a_password_user(cli: Machine, source: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    made = cli("-r", repo, "init")
    assert made.code == 0 and "SNAPVAULT-RECOVERY-1" in made.out and "shown this once" in made.out
    first = cli("-r", repo, "backup", "--dataset", "d", "--tag", "first", source)
    assert first.code == 0 and "files: 2 new, 0 changed, 0 unmodified; " in first.out and "1 other entry" in first.out
    (source / "a.txt").write_text("changed\n")
    second = cli("backup", "-r", repo, "--dataset", "d", source)
    assert "files: 0 new" in second.out and "compared with" in second.out, second
    listed = cli("snapshots", "-r", repo)
    assert listed.code == 0 and listed.out.count(" d ") == 2 and "first" in listed.out and "2 snapshots" in listed.out
    restored = cli("restore", "d@latest", "-r", repo, "--target", tmp_path / "out", "--verify")
    assert restored.code == 0 and "everything was read back and is the same" in restored.out
    assert tree_of(tmp_path / f"out{source}") == tree_of(source)
    checked = cli("-r", repo, "check", "--read-data")
    assert checked.code == 0 and "No damage was found." in checked.out and "100.0%" in checked.out


def test_init_writes_the_recovery_key_to_a_private_file(cli: Machine, tmp_path: Path) -> None:
    repo, key = tmp_path / "repo", tmp_path / "recovery.key"
    done = cli("-r", repo, "init", "--recovery-key-file", key)
    assert done.code == 0 and "SNAPVAULT-RECOVERY-1" not in done.out and str(key) in done.out
    assert key.stat().st_mode & 0o777 == 0o600
    assert by_password(cli)("--key-file", key, "-r", repo, "snapshots").code == 0
    again = cli("-r", tmp_path / "other", "init", "--recovery-key-file", key)
    assert again.code == 2 and "exists already" in again.err and not (tmp_path / "other").exists()


def test_a_failed_init_leaves_no_recovery_key_file(cli: Machine, repo: Path, tmp_path: Path) -> None:
    done = by_password(cli)("init", "--recovery-key-file", tmp_path / "new.key")
    assert done.code == 2 and "already" in done.err and not (tmp_path / "new.key").exists()


def test_the_option_beats_the_environment_and_the_later_one_the_earlier(cli: Machine, repo: Path) -> None:
    cli.env["SNAPVAULT_REPOSITORY"] = "/nowhere"
    assert cli("snapshots").code == 10
    assert cli("-r", repo, "snapshots").code == 0
    assert cli("-r", "/nowhere/either", "snapshots", "-r", repo).code == 0


def test_a_key_file_makes_a_password_count_for_nothing(cli: Machine, repo: Path) -> None:
    cli.env["SNAPVAULT_PASSWORD"] = "wrong"
    assert cli("snapshots").code == 0
    assert by_password(cli)("snapshots").code == 12


@pytest.mark.parametrize("how", ["PASSWORD_FILE", "PASSWORD_COMMAND", "--password-file", "--password-command"])
def test_the_ways_to_give_a_password(cli: Machine, repo: Path, tmp_path: Path, how: str) -> None:
    file = tmp_path / "password with space"
    file.write_text(PASSWORD + "\n")
    value = f"cat '{file}'" if how.lower().endswith("command") else str(file)
    if how.startswith("--"):
        by_password(cli).env["SNAPVAULT_PASSWORD"] = "wrong"  # an option wins
        assert cli("snapshots", how, value).code == 0
    else:
        del by_password(cli).env["SNAPVAULT_PASSWORD"]
        cli.env[f"SNAPVAULT_{how}"] = value
        assert cli("snapshots").code == 0


def test_cache_and_state_are_private_and_where_one_says(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    for default in (cli.home / ".cache/snapvault", cli.home / ".local/state/snapvault"):
        assert default.stat().st_mode & 0o777 == 0o700 and [p.is_dir() for p in default.iterdir()] == [True]
    cli.env |= {"SNAPVAULT_CACHE_DIR": str(tmp_path / "c"), "SNAPVAULT_STATE_DIR": str(tmp_path / "s")}
    save(cli, source)
    assert len(list((tmp_path / "c").iterdir())) == len(list((tmp_path / "s").iterdir())) == 1
    save(cli, "--no-cache", "--cache-dir", tmp_path / "unused", source)
    assert not (tmp_path / "unused").exists()


def test_a_stream(cli: Machine, repo: Path) -> None:
    save(cli, "--stdin", "--stdin-name", "orders.csv", stdin=b"a,b\n1,2\n")
    assert cli("restore", "d@latest:/orders.csv", "--stdout").stdout == b"a,b\n1,2\n"
    save(cli, "--stdin", stdin=b"")
    assert cli("restore", "d@latest:/stdin", "--stdout").stdout == b""


def test_the_output_of_a_command(cli: Machine, repo: Path) -> None:
    save(cli, "--stdin-name", "words", "--from-command", "--", "printf", "%s-%s", "--tag", "*")
    assert cli("restore", "d@latest:/words", "--stdout").stdout == b"--tag-*"
    failed = cli("backup", "--dataset", "d", "--from-command", "--", "sh", "-c", "echo half; echo no disk >&2; exit 3")
    assert failed.code == 1 and "exit status 3" in failed.err and "no disk" in failed.err
    assert cli("snapshots", "--json").summary["snapshots"] == 1


def test_what_is_left_out(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    (source / "cache").mkdir()
    (source / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (source / "cache/data").touch()
    (source / "x.tmp").touch()
    (source / "y.log").touch()
    (tmp_path / "patterns").write_text("# logs\n*.log\n")
    save(cli, "--exclude", "*.tmp", "--exclude-file", tmp_path / "patterns", "--exclude-caches",
         "--exclude-larger-than", "4K", source)  # fmt: skip
    listed = cli("ls", f"d@latest:{source}", "-R").out.splitlines()
    assert [line.removeprefix(str(source)) for line in listed] == [
        "/a.txt", "/cache", "/cache/CACHEDIR.TAG", "/folder", "/folder/link",
    ]  # fmt: skip


def test_files_from_a_list(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(os.fsencode(source / "a.txt") + b"\0")
    save(cli, "--files-from", tmp_path / "list")
    assert [e["path"] for e in cli("ls", f"d@latest:{source}", "--json").records[:-1]] == [str(source / "a.txt")]


def test_time_host_and_parent(cli: Machine, repo: Path, source: Path) -> None:
    first = save(cli, "--time", "2020-02-03T04:05:06", "--host", "other", source)
    second = save(cli, source)
    third = cli("backup", "--json", "--dataset", "d", "--parent", first, source)
    assert third.summary["parent"] == first
    assert cli("snapshots", "--host", "other").out.splitlines()[1].startswith(f"{first[:8]}  2020-02-03 04:05:06  d")
    assert cli("ls", "d@2020-06-01").code == 0
    assert cli("snapshots", "--dataset", "none", "--json").summary["snapshots"] == 0
    assert second != first


def test_a_dry_run_stores_nothing(cli: Machine, repo: Path, source: Path) -> None:
    before = tree_of(repo)
    done = cli("backup", "--dataset", "d", "--dry-run", source)
    assert done.code == 0 and "Dry run of d" in done.out and "2 new" in done.out
    assert tree_of(repo) == before


def test_ls(cli: Machine, repo: Path, source: Path) -> None:
    os.chmod(source / "a.txt", 0o4755)
    os.utime(source / "a.txt", (1e9, 1e9))
    save(cli, source)
    assert cli("ls", "d@latest").out.splitlines() == [f"/{source.parts[1]}"]
    long = cli("ls", f"d@latest:{source}", "--long").out.splitlines()
    assert long[0].split() == [
        "-rwsr-xr-x", "root:root", "6", "2001-09-09", "01:46:40", f"{source}/a.txt",
    ]  # fmt: skip
    assert cli("ls", f"d@latest:{source}/folder", "-l").out.splitlines()[1].endswith("link -> b.txt")
    assert cli("ls", "d@latest", "--find", "*.txt").out.splitlines() == [f"{source}/a.txt", f"{source}/folder/b.txt"]
    assert cli("ls", "d@latest", "--find", "*/folder/*").out.count("\n") == 2
    stats = cli("ls", f"d@latest:{source}", "--stats")
    assert stats.out == "2 files, 1 folder, 1 other entry, 4.9 KiB\n"


def test_diff(cli: Machine, repo: Path, source: Path) -> None:
    a = save(cli, source)
    (source / "a.txt").write_text("longer than before\n")
    (source / "new").touch()
    (source / "folder/link").unlink()
    os.chmod(source / "folder/b.txt", 0o600)
    b = save(cli, source)
    done = cli("diff", a, b)
    assert [line.split()[:2] for line in done.out.splitlines()[:-1]] == [
        ["M", f"{source}/a.txt"], ["m", f"{source}/folder/b.txt"],
        ["-", f"{source}/folder/link"], ["+", f"{source}/new"],
    ]  # fmt: skip
    assert done.out.splitlines()[-1] == "4 changes: 1 added, 1 removed, 1 modified, 1 metadata; +13 B"
    assert cli("diff", a, b, "--path", f"{source}/folder").out.splitlines()[-1].startswith("2 changes")
    assert cli("diff", b, b).out == "no change\n"


def test_a_part_is_restored_into_the_target(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    out = tmp_path / "out"
    assert cli("restore", f"d@latest:{source}/folder", "-t", out).code == 0
    assert sorted(os.listdir(out)) == ["b.txt", "link"]
    (out / "more").touch()
    (out / "b.txt").write_text("damaged")
    dry = cli("restore", f"d@latest:{source}/folder", "-t", out, "--delete", "--dry-run")
    assert {line.split()[0]: line.split()[1] for line in dry.out.splitlines()[:-1]} == {"M": "b.txt", "-": "more"}
    assert (out / "more").exists() and (out / "b.txt").read_text() == "damaged"
    done = cli("restore", f"d@latest:{source}/folder", "-t", out, "--delete")
    assert done.code == 0 and "1 entry removed" in done.out and tree_of(out) == {
        "b.txt": b"beta\n" * 1000, "link": b"beta\n" * 1000,
    }  # fmt: skip


def test_include_and_exclude_of_a_restore(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    cli("restore", f"d@latest:{source}", "-t", tmp_path / "out", "--include", "*.txt", "--exclude", "a.*")
    assert list(tree_of(tmp_path / "out")) == ["folder/b.txt"]


def test_a_dash_is_no_target(cli: Machine, repo: Path, source: Path) -> None:
    """Elsewhere it is standard output: nobody gets a folder of that name, and a line of text in the file."""
    save(cli, source)
    done = cli("restore", "d@latest", "--target", "-")
    assert done.code == 2 and "--stdout" in done.err and not done.stdout


def test_a_folder_to_stdout_is_a_tar(cli: Machine, repo: Path, source: Path) -> None:
    save(cli, source)
    done = cli("restore", f"d@latest:{source}", "--stdout", "--exclude", "a.txt")
    assert done.code == 0
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert [m.name for m in tar] == ["folder", "folder/b.txt", "folder/link"]


def test_forget(cli: Machine, repo: Path, source: Path) -> None:
    a, b = save(cli, source), save(cli, source)
    assert "would be forgotten" in cli("forget", a, "--dry-run").out
    assert cli("snapshots", "--json").summary["snapshots"] == 2
    cli("snapshots", "hold", a)
    held = cli("forget", b, a)
    assert held.code == 2 and f"{a[:8]} of d is held" in held.err and f"release {a[:8]}" in held.err, held
    assert cli("snapshots", "--json").summary["snapshots"] == 2
    cli("snapshots", "release", a)
    header, row, end = cli("forget", a).out.splitlines()
    assert header.split() == ["ID", "Time", "Dataset", "Host"] and row.startswith(a[:8]) and " d " in row
    assert end == "1 snapshot forgotten; no space was freed"
    assert [r["id"] for r in cli("snapshots", "--json").records[:-1]] == [b]
    assert cli("forget").code == 0
    unknown = cli("forget", b, "feedbeefed")
    assert unknown.code == 2 and "feedbeefed" in unknown.err and cli("snapshots", "--json").summary["snapshots"] == 1


def test_forget_by_rules(cli: Machine, repo: Path, source: Path) -> None:
    made = [save(cli, "--time", f"2026-01-0{day}T10:00", source) for day in range(1, 7)]
    assert cli("snapshots", "hold", made[0]).out == f"{made[0][:8]} is held\n"
    assert cli("snapshots", "tag", made[1], "release", "v1").out == f"{made[1][:8]} is not held, tags: release, v1\n"
    rules = ("--dataset", "d", "--keep-last", 1, "--keep-daily", 2, "--keep-tag", "release")
    plan = cli("forget", *rules, "--dry-run", "--json")
    reasons = {r["snapshot"]: r["reasons"] for r in plan.records[:-1]}
    assert reasons == {
        made[0]: ["held"], made[1]: ["tag"], made[2]: [], made[3]: [], made[4]: ["daily"],
        made[5]: ["last", "daily", "minimum"],
    }  # fmt: skip
    assert cli("snapshots", "--json").summary["snapshots"] == 6
    done = cli("forget", *rules)
    assert done.code == 0 and "2 snapshots forgotten" in done.out and done.out.count("\nforget") == 2, done
    assert {r["id"] for r in cli("snapshots", "--json").records[:-1]} == set(made) - {made[2], made[3]}
    listed = cli("snapshots").out
    assert "held" in listed and "release,v1" in listed
    assert cli("snapshots", "release", made[0]).code == 0
    assert cli("snapshots", "tag", made[1], "--remove", "release").code == 0
    assert "4 snapshots" not in cli("forget", *rules).out and cli("snapshots", "--json").summary["snapshots"] == 2


def test_rules_that_make_no_sense(cli: Machine, repo: Path, source: Path) -> None:
    a = save(cli, source)
    for argv, said in (
        (["--keep-last", 1, a], "do not go together"),
        (["--dataset", "d"], "needs a rule"),
        (["--keep-last", 1, "--dataset", "e"], "there are d"),
        (["--keep-last", -1], "-1"),
        (["--keep-within", "tomorrow"], "36h"),
        (["--keep-within", "99999999999y"], "longer"),
    ):
        done = cli("forget", *argv)
        assert done.code == 2 and said in done.err, done
    assert cli("snapshots", "--json").summary["snapshots"] == 1


def test_prune(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    (source / "a.txt").write_bytes(os.urandom(1 << 20))
    first = save(cli, source)
    (source / "a.txt").write_bytes(os.urandom(1 << 20))
    second = save(cli, source)
    assert "0 B freed" in cli("prune").out
    cli("forget", first)
    planned = cli("prune", "--dry-run")
    assert planned.code == 0 and "would free 0 B" in planned.out and "1.0 MiB more once" in planned.out, planned
    cli("forget", second, "--undelete-window", "0h")
    save(cli, source)
    done = cli("prune", "--max-unused", "0%")
    assert done.code == 0 and "more once forgotten" in done.out, done
    cli("snapshots", "undelete", first)
    cli("forget", "--keep-last", 1, "--keep-minimum", 0, "--undelete-window", "0h")
    freed = cli("forget", "--prune", "--json").summary["pruned"]
    assert cli("forget", "--keep-last", 5, "--prune").out.splitlines()[-2:-1] == [
        "0 B freed: 0 packs removed, 0 B copied out of them"
    ]
    assert freed["status"] == "ok" and freed["waits_for"] == [] and freed["bytes_waiting"] > 1 << 20  # of the first
    assert cli("check", "--read-data").code == 0
    assert cli("restore", "d@latest", "--target", tmp_path / "out").code == 0
    for argv in (["--max-unused", "much"], ["--max-unused", "200%"], ["--lease", "soon"], ["--max-rewrite", "x"]):
        assert cli("prune", *argv).code == 2


def test_minutes_are_not_mistaken_for_months(cli: Machine, repo: Path, source: Path) -> None:
    """A bare m is refused where it could be either, with what to write instead; --keep-within has it as restic does."""
    sid = save(cli, source)
    for argv in (["prune", "--lease", "1m"], ["prune", "--wait", "5m"], ["prune", "--max-time", "5m"]):
        done = cli(*argv)
        assert done.code == 2 and "ambiguous" in done.err and f"write {argv[-1]}in\n" in done.err, done
    done = cli("forget", sid, "--undelete-window", "30m", "--json")
    assert done.code == 2 and done.records[-1]["code"] == "invalid-input", done
    assert done.records[-1]["hint"] == "write 30min or 30mo"
    for argv in (["--lease", "20s"], ["--wait", "7"], ["--wait", "1min"], ["--max-time", "30"], ["--max-time", "2h"]):
        assert cli("prune", "--dry-run", *argv).code == 0
    for span in ("3m", "3mo", "1y6m"):
        assert cli("forget", "--keep-within", span, "--dry-run").code == 0
    before = datetime.now(UTC)
    assert cli("forget", sid, "--undelete-window", "30min").code == 0
    (forgotten,) = (x for x in cli("snapshots", "--forgotten", "--json").records if x["type"] == "item")
    until = datetime.fromisoformat(str(forgotten["until"]))
    assert timedelta(minutes=29) < until - before < timedelta(minutes=40)


def test_keys(cli: Machine, repo: Path, tmp_path: Path) -> None:
    assert cli("key", "add", "auditor", "--role", "reader", "--file", tmp_path / "auditor.key").code == 0
    listed = cli("key", "list").out
    assert "auditor" in listed and "key-file" in listed and "in use now" in listed
    assert cli("--key-file", tmp_path / "auditor.key", "snapshots").code == 0
    assert cli("key", "remove", "auditor").code == 0
    removed = cli("--key-file", tmp_path / "auditor.key", "snapshots")
    assert removed.code == 12
    assert "removed" in cli("key", "list").out


def test_a_password_is_changed(cli: Machine, repo: Path) -> None:
    by_password(cli).env["SNAPVAULT_NEW_PASSWORD"] = "new one"
    assert cli("key", "change").code == 0
    del cli.env["SNAPVAULT_NEW_PASSWORD"]
    assert cli("snapshots").code == 12
    cli.env["SNAPVAULT_PASSWORD"] = "new one"
    assert cli("snapshots").code == 0


def test_a_lost_password_is_replaced_by_the_recovery_key(cli: Machine, repo: Path) -> None:
    cli.env["SNAPVAULT_NEW_PASSWORD"] = "new one"
    assert cli("key", "change").code == 0  # opened by the recovery key
    by_password(cli).env["SNAPVAULT_PASSWORD"] = "new one"
    assert cli("snapshots").code == 0


def test_keys_are_rotated(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    done = cli("key", "rotate", "--recovery-key-file", tmp_path / "new.key")
    assert done.code == 0 and str(tmp_path / "new.key") in done.out
    save(by_password(cli), source)
    assert cli("--key-file", tmp_path / "new.key", "snapshots", "--json").summary["snapshots"] == 2
    assert "SNAPVAULT-RECOVERY-1" in cli("key", "rotate", "--new-recovery-key").out


def test_a_scrub_needs_no_key(cli: Machine, repo: Path) -> None:
    cli.env = {k: v for k, v in cli.env.items() if k not in ("SNAPVAULT_PASSWORD", "SNAPVAULT_KEY_FILE")}
    done = cli("check", "--no-key")
    assert done.code == 0 and done.out.startswith("scrub: ")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_the_common_options(cli: Machine, verb: str) -> None:
    done = cli(verb, *(["add"] if verb == "key" else ["push"] if verb == "site" else []), "--help")
    assert done.code == 0 and "--json" in done.out and "--repository" in done.out
    assert re.search(rf"^  snapvault (-r \S+ )?{verb}", done.out, re.MULTILINE)


def test_help_lists_every_verb(cli: Machine) -> None:
    done = cli("--help")
    assert done.code == 0 and all(f"\n  {verb} " in done.out for verb in VERBS)


def test_version(cli: Machine) -> None:
    assert cli("--version").out.startswith("snapvault 0.")


def test_the_shell_completes_from_the_same_definitions(cli: Machine) -> None:
    cli.env |= {"_SNAPVAULT_COMPLETE": "bash_complete", "COMP_WORDS": "snapvault ba", "COMP_CWORD": "1"}
    assert cli.process().out == "plain,backup\n"
    cli.env["COMP_WORDS"] = "snapvault backup --one"
    cli.env["COMP_CWORD"] = "2"
    assert cli.process().out == "plain,--one-file-system\n"


def test_for_whom_a_prune_waits(cli: Machine, repo: Path, source: Path) -> None:
    """A backup or another prune, and until when at most."""
    save(cli, source)
    (source / "a.txt").write_bytes(os.urandom(1 << 20))
    save(cli, source)
    cli("forget", "--keep-last", 1, "--keep-minimum", 0, "--undelete-window", "0h")
    key = snapvault.KeyFile(Path(cli.env["SNAPVAULT_KEY_FILE"]))
    with snapvault.open(str(repo), keys=key) as opened:
        vault = opened.vault
        (domain,) = vault.ring.domains.values()
        backup = Session(vault.store, vault.ring, domain)
        prune = Session(vault.store, vault.ring, domain, purpose=GC, sid=SessionId("gc" + "f" * 32))
        for session in (backup, prune):
            session.announce()
        said = cli("prune", "--wait", 0, "--max-unused", "0%")
        assert said.code == 3, said
        assert f"left: the backup {backup.sid[:8]}, the prune gcffffff did not end; run it again later" in said.out
        assert re.search(r"one that was killed is waited for until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d at most", said.out)
        backup.abort()
        done = cli("prune", "--wait", 0, "--max-unused", "0%", "--exclusive")
        assert done.code == 0 and "0 B freed" not in done.out, done
        assert not prune.abort()
