"""The tools in the contest: how each does a step.  Encryption is on and zstd is at level 3 wherever a tool has it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

STEPS = ("init", "first", "list", "unchanged", "changed", "restore", "check")
BACKUPS = ("first", "unchanged", "changed")
PASSWORD = "no secret"


@dataclass
class Case:
    """One tool at one corpus in one round: its folders, and what it has stored so far."""

    folder: Path
    live: str
    stored: list[str] = field(default_factory=list)  # the steps that made a snapshot
    snapshot: str = ""  # the tool's own name of the last one, where a restore needs it

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def home(self) -> Path:
        """For what a tool keeps beside its repository: caches, keys."""
        return self.folder / "home"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def newest(self) -> str:
        return self.stored[-1]


class Tool:
    """A command and its verbs."""

    name = ""
    how = ""  # settings that matter, for the report
    exact = True  # restores owners, modes, times and links, so that everything is compared; else contents only

    def __init__(self, program: list[str]) -> None:
        self.program = program

    def env(self, case: Case) -> dict[str, str]:
        """Variables beside PATH, HOME and a plain locale."""
        raise NotImplementedError

    def command(self, step: str, case: Case) -> list[str] | None:
        """The command of one of STEPS, run in ``case.out`` for a restore; None if the tool has no such thing."""
        raise NotImplementedError

    def version(self) -> list[str]:
        return [*self.program, "--version"]

    def done(self, step: str, case: Case, output: str) -> None:
        """Take note of a step that went well."""
        if step in BACKUPS:
            case.stored.append(step)


class Snapvault(Tool):
    name, how = "snapvault", "defaults"

    def env(self, case: Case) -> dict[str, str]:
        return {
            "SNAPVAULT_REPOSITORY": str(case.repo),
            "SNAPVAULT_PASSWORD": PASSWORD,
            "SNAPVAULT_NEW_PASSWORD": PASSWORD,
            "SNAPVAULT_CACHE_DIR": str(case.home / "cache"),
            "SNAPVAULT_STATE_DIR": str(case.home / "state"),
        }

    def command(self, step: str, case: Case) -> list[str] | None:
        verbs = {
            "init": ["init", "--recovery-key-file", str(case.home / "recovery.key")],
            "list": ["snapshots"],
            "restore": ["restore", "bench@latest", "--target", str(case.out)],
            "check": ["check", "--read-data=100%"],
        }
        return [*self.program, "--quiet", *verbs.get(step, ["backup", "--dataset", "bench", case.live])]


class Restic(Tool):
    name, how = "restic", "repository version 2, compression auto (zstd at its default level)"

    def env(self, case: Case) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(case.repo),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(case.home / "cache"),
        }

    def version(self) -> list[str]:
        return [*self.program, "version"]

    def command(self, step: str, case: Case) -> list[str] | None:
        verbs = {
            "init": ["init", "--repository-version", "2"],
            "list": ["snapshots"],
            "restore": ["restore", "latest", "--target", str(case.out)],
            "check": ["check", "--read-data"],
        }
        return [*self.program, "--quiet", "--compression", "auto", *verbs.get(step, ["backup", case.live])]


class Borg(Tool):
    name, how = "borg", "repokey-blake2 (AES-CTR), zstd,3"

    def env(self, case: Case) -> dict[str, str]:
        return {"BORG_REPO": str(case.repo), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(case.home)}

    def command(self, step: str, case: Case) -> list[str] | None:
        if step in BACKUPS:
            return [*self.program, "create", "--compression", "zstd,3", f"::{step}", case.live]
        if step == "restore":
            return [*self.program, "extract", f"::{case.newest}"]
        verbs = {
            "init": ["init", "--encryption", "repokey-blake2"],
            "list": ["list"],
            "check": ["check", "--verify-data"],
        }
        return [*self.program, *verbs[step]]


class Replicat(Tool):
    name, how = "replicat", "AES-GCM; has no compression, no check, and keeps contents only"
    exact = False

    def env(self, case: Case) -> dict[str, str]:
        return {"REPLICAT_REPOSITORY": f"local:{case.repo}", "REPLICAT_PASSWORD": PASSWORD}

    def command(self, step: str, case: Case) -> list[str] | None:
        key = str(case.home / "key")
        common = ["--hide-progress", "--ignore-config", "--cache-directory", str(case.home / "cache")]
        if step == "init":
            return [*self.program, "init", *common, "--key-output-file", key]
        opened = [*common, "--key-file", key]
        if step in BACKUPS:
            return [*self.program, "snapshot", *opened, case.live]
        if step == "restore":
            return [*self.program, "restore", *opened, "--snapshot-regex", case.snapshot, str(case.out)]
        return [*self.program, "list-snapshots", *opened] if step == "list" else None

    def done(self, step: str, case: Case, output: str) -> None:
        super().done(step, case, output)
        named = re.findall(r"\b[0-9a-f]{64,}\b", output)
        if step in BACKUPS and named:
            case.snapshot = named[-1]


class Pipe(Tool):
    """What the primitives do when nothing is between them: no deduplication, no index, and no fsync."""

    name, how = "pipe", "tar | zstd -3 | openssl enc -aes-256-ctr, no fsync"

    def env(self, case: Case) -> dict[str, str]:
        return {"PASSWORD": PASSWORD}

    def version(self) -> list[str]:
        return ["bash", "-c", "tar --version | head -n 1; zstd --version; openssl version"]

    def command(self, step: str, case: Case) -> list[str] | None:
        cipher = "openssl enc -aes-256-ctr -pbkdf2 -pass env:PASSWORD"
        if step == "init":
            return ["mkdir", "-p", str(case.repo)]
        if step in ("first", "changed"):
            script = f'tar -c -P --numeric-owner "$0" | zstd -q -3 | {cipher} -out "$1"'
            return self._bash(script, case.live, str(case.repo / step))
        if step == "restore":
            script = f'{cipher} -d -in "$0" | zstd -q -d | tar -x -p --numeric-owner'
            return self._bash(script, str(case.repo / case.newest))
        if step == "check":
            return self._bash(f'for f in "$0"/*; do {cipher} -d -in "$f" | zstd -q -t; done', str(case.repo))
        return None

    def _bash(self, script: str, *args: str) -> list[str]:
        return [*self.program, "-e", "-o", "pipefail", "-c", script, *args]


ALL: dict[str, type[Tool]] = {tool.name: tool for tool in (Snapvault, Restic, Borg, Replicat, Pipe)}
