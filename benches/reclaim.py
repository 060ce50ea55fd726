#!/usr/bin/env python3
"""Forget and prune beside restic, a backup beside a running prune, and four writers at once on one repository.

    python benches/reclaim.py                                # small files and image, three rounds
    python benches/reclaim.py --corpora image --rounds 1

Run it as peers.py, whose corpora it uses.  Each tool backs up the first version once and the second one twice; then the
first snapshot is forgotten and pruned, both timed together, with the tools' own defaults and no time in which it could
be brought back.  The first version is then backed up again alone, and, on a copy of the repository as it was before the
prune, while a prune runs.  Four processes begin a backup of the first version at the same moment on a new repository;
every snapshot is restored and compared, then the repository is pruned and checked.  ``stored`` and ``left``: its bytes
before and after that prune, in relation to those after one backup.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from peerbench import corpora
from peerbench.contest import difference
from peerbench.install import tools, versions
from peerbench.measure import bytes_of, machine, run, warm
from peerbench.options import bench_parser
from peerbench.tools import PASSWORD, Case, Restic, Snapvault, Tool

WRITERS = 4


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    found = tools(["snapvault", "restic"], work, options.snapvault)
    facts = {"machine": machine(work), "tools": versions(found)}
    print(json.dumps(facts), flush=True)
    here, results = work / f"reclaim-{time.time_ns()}", list[dict[str, Any]]()
    for number in range(options.rounds):
        for corpus in corpora.load(options.corpora, work, options.scale):
            for tool in found if number % 2 == 0 else found[::-1]:
                place = here / f"{corpus.name}-{number}-{tool.name}"
                measured = Round(tool, corpus, place).measure()
                results.append({"corpus": corpus.name, "tool": tool.name, **measured})
                print(json.dumps(results[-1]), flush=True)
    (options.out or work).mkdir(parents=True, exist_ok=True)
    (options.out or work).joinpath("reclaim.json").write_text(json.dumps({**facts, "results": results}, indent=1))
    report(results)
    shutil.rmtree(here)
    return 0


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--corpora", type=lambda s: s.split(","), default=["small", "image"], help="small,image,dump")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X")
    parser.add_argument("--snapvault", metavar="COMMAND", help="use this instead of this checkout's")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser.parse_args()


class Round:
    """One tool at one corpus."""

    def __init__(self, tool: Tool, corpus: corpora.Corpus, folder: Path) -> None:
        self._tool, self._corpus, self._folder = tool, corpus, folder

    def measure(self) -> dict[str, Any]:
        """Seconds, bytes, and ratios of bytes."""
        with self._corpus.shown() as change:
            case = self._case("main")
            self._do(case, "init"), self._do(case, "first")
            one = bytes_of(case.repo)
            oldest = self._snapshots(case)[0]
            change()
            self._do(case, "changed"), self._do(case, "unchanged")
            beside = self._copy(case, "beside")
            whole = bytes_of(case.repo)
            warm(case.repo)
            os.sync()
            reclaimed = self._run(case, self._reclaim(case, oldest), "reclaim")
            freed = whole - bytes_of(case.repo)
            self._do(case, "check")
        with self._corpus.shown():
            alone, while_pruning, pruned = self._beside(beside, oldest)
            stored, four, left, after = self._four(one)
        return {
            "forget and prune": reclaimed.wall, "peak": reclaimed.peak, "freed": freed, "backup alone": alone,
            "backup beside a prune": while_pruning, "prune beside a backup": pruned, "four writers": four,
            "stored by four": stored, "prune after four": after, "left of four": left,
        }  # fmt: skip

    def _beside(self, beside: Case, oldest: str) -> tuple[float, float, float]:
        """A backup alone, one beside a prune, that prune."""
        other = self._copy(beside, "alone")
        alone = self._do(other, "first").wall
        prune = self._reclaim(beside, oldest)
        begin = time.perf_counter()
        with open(beside.folder / "prune.log", "wb") as log:
            running = subprocess.Popen(prune, env=self._env(beside), stdout=log, stderr=log)
            time.sleep(0.5)  # it has its lock, or has begun to look
            while_pruning = self._do(beside, "first").wall
            code = running.wait()
        pruned = time.perf_counter() - begin
        if code:  # 3: it gave up waiting, which is no figure
            raise SystemExit((beside.folder / "prune.log").read_text())
        self._do(beside, "check")
        return alone, while_pruning, pruned

    def _four(self, one: int) -> tuple[float, float, float, float]:
        """What four writers stored, in relation to one, and the seconds that they took; the same after a prune."""
        case = self._case("four")
        self._do(case, "init")
        begin = time.perf_counter()
        writers = []
        for number in range(WRITERS):
            own = {**self._env(case), "HOME": str(case.home / str(number))}
            own |= {k: f"{v}-{number}" for k, v in own.items() if k.endswith(("CACHE_DIR", "STATE_DIR"))}
            writers.append(subprocess.Popen(self._tool.command("first", case) or [], env=own))
        codes = [writer.wait() for writer in writers]
        if any(codes):
            raise SystemExit(f"{self._tool.name}: one of four writers failed")
        took = time.perf_counter() - begin
        for sid in self._snapshots(case):
            command = self._restore(case, sid)
            self._run(case, command, "restore", case.out)
            problem = difference(Path(self._corpus.live), Path(f"{case.out}{self._corpus.live}"), exact=True)
            if problem:
                raise SystemExit(problem)
            case.out.rename(case.folder / f"restored-{sid}")
            case.out.mkdir()
        stored = bytes_of(case.repo) / one
        pruned = self._run(case, [*self._tool.program, "--quiet", "prune"], "prune").wall
        self._do(case, "check")
        return stored, took, bytes_of(case.repo) / one, pruned

    # -- the tools' words ----------------------------------------------------------------------------------------

    def _reclaim(self, case: Case, oldest: str) -> list[str]:
        if isinstance(self._tool, Snapvault):
            forget = f"forget --undelete-window 0h {oldest}"
            program = " ".join(self._tool.program)
            return ["sh", "-c", f"{program} --quiet {forget} && {program} --quiet prune"]
        return [*self._tool.program, "--quiet", "forget", oldest, "--prune"]

    def _restore(self, case: Case, sid: str) -> list[str]:
        return [*self._tool.program, "--quiet", "restore", sid, "--target", str(case.out)]

    def _snapshots(self, case: Case) -> list[str]:
        """Ids, oldest first."""
        done = subprocess.run(
            [*self._tool.program, "snapshots", "--json"],
            env=self._env(case),
            capture_output=True,
            text=True,
            check=True,
        )
        if isinstance(self._tool, Restic):
            return [s["id"] for s in sorted(json.loads(done.stdout), key=lambda s: s["time"])]
        records = [json.loads(line) for line in done.stdout.splitlines()]
        return [r["id"] for r in records if r["type"] == "item"]

    # -- running them --------------------------------------------------------------------------------------------

    def _case(self, name: str) -> Case:
        case = Case(self._folder / name, self._corpus.live)
        case.home.mkdir(parents=True)
        case.out.mkdir()
        return case

    def _copy(self, case: Case, name: str) -> Case:
        shutil.copytree(case.folder, self._folder / name)
        return Case(self._folder / name, case.live)

    def _env(self, case: Case) -> dict[str, str]:
        plain = {"PATH": os.environ["PATH"], "HOME": str(case.home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return {**plain, **self._tool.env(case), "RESTIC_PASSWORD": PASSWORD}

    def _do(self, case: Case, step: str) -> Any:
        command = self._tool.command(step, case) or []
        if step != "init":
            warm(Path(case.live))
            warm(case.repo)
        os.sync()
        return self._run(case, command, step)

    def _run(self, case: Case, command: list[str], what: str, folder: Path | None = None) -> Any:
        begin = time.perf_counter()
        sample = run(command, self._env(case), case.folder / f"{what}.log", folder)
        while sample.code and "already locked" in sample.output:  # restic says so; its user tries again
            sample = run(command, self._env(case), case.folder / f"{what}.log", folder)
            sample = replace(sample, wall=time.perf_counter() - begin)
        if sample.code:
            raise SystemExit(f"exit {sample.code}: {' '.join(command)}\n{sample.output}")
        return sample


def report(results: list[dict[str, Any]]) -> None:
    """Medians, and the spread; the ratio to restic's."""
    found = defaultdict[tuple[str, str], dict[str, list[float]]](lambda: defaultdict(list))
    for result in results:
        for key, value in result.items():
            if not isinstance(value, str):
                found[result["corpus"], key][result["tool"]].append(value)
    for (corpus, key), by_tool in found.items():
        ours, theirs = by_tool["snapvault"], by_tool["restic"]
        told = [f"{t} {statistics.median(v):.4g} ({min(v):.4g}-{max(v):.4g})" for t, v in by_tool.items()]
        print(f"{corpus:6} {key:24} {', '.join(told)}: {statistics.median(ours) / statistics.median(theirs):.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
