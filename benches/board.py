#!/usr/bin/env python3
"""The board over hundreds of datasets with a year of evidence: how long `snapvault status` takes, and its memory.

    python benches/board.py                                   # 800 datasets, drilled once a week
    python benches/board.py --drilled-every 1                 # once a day: 292,000 results
    python benches/board.py --snapshots 30                    # and 30 snapshots of each that are not forgotten

Run it with the environment that snapvault is installed in.  Everything is real: a repository and a copy of it, a
register, snapshots of small files, attestations that read all, and results of drills in signed records as `drill --due`
writes them.  Only the drills themselves are not held.  Each figure is that of a fresh process: wall time from start to
exit, and peak memory.
"""

import argparse
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

from peerbench.measure import bytes_of, machine, run
from peerbench.options import bench_parser

import snapvault
from snapvault.assurance.declaration import declare
from snapvault.assurance.drill import versions
from snapvault.assurance.evidence import record_evidence
from snapvault.assurance.outcome import FAIL, PASSED, Outcome
from snapvault.assurance.planted import ControlResult
from snapvault.assurance.probing import ProbeResult
from snapvault.assurance.results import STEPS, DrillResult

PASSWORD, DAYS, DAY = "board", 365, timedelta(days=1)
STATUS = [sys.executable, "-m", "snapvault", "status"]


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print(json.dumps(machine(work)), flush=True)
    # A process of its own: the memory of the one that starts a command counts as the command's.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        made = pool.submit(make, work, options.datasets, options.snapshots, options.drilled_every).result()
    print(f"{made}, {bytes_of(work / 'repository'):,} bytes", flush=True)
    files = ("--html", work / "board.html", "--prometheus", work / "board.prom")
    for name, cache, extra in (
        ("no cache", "cold", ()), ("again", "cold", ()), ("with JSON", "cold", ("--json",)),
        ("with HTML and Prometheus", "cold", files),
    ):  # fmt: skip
        measure(work, name, cache, [*STATUS, *map(str, extra)])
    print(f"board.html: {(work / 'board.html').stat().st_size:,} bytes")
    if not options.keep:
        shutil.rmtree(work)
    return 0


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--datasets", type=int, default=800, metavar="N")
    parser.add_argument("--snapshots", type=int, default=1, metavar="N", help="of each dataset (default: 1)")
    parser.add_argument("--drilled-every", type=int, default=7, metavar="DAYS", help="(default: 7)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-board"), metavar="DIR")
    parser.add_argument("--keep", action="store_true", help="leave it all")
    return parser.parse_args()


def measure(work: Path, name: str, cache: str, command: list[str]) -> None:
    env = {
        **os.environ, "SNAPVAULT_REPOSITORY": str(work / "repository"), "SNAPVAULT_KEY_FILE": str(work / "key"),
        "SNAPVAULT_CACHE_DIR": str(work / cache), "SNAPVAULT_STATE_DIR": str(work / "state"),
    }  # fmt: skip
    sample = run(command, env, work / "log")
    assert sample.code in (0, 3, 21, 22), sample.output
    print(f"{name:32} {sample.wall:6.2f} s, {sample.cpu:5.2f} s of CPU, {sample.peak / 1e6:5.0f} MB", flush=True)


def make(work: Path, datasets: int, snapshots: int, every: int) -> str:
    """A repository with a copy, and a year of evidence; what was made."""
    place, copy = str(work / "repository"), str(work / "copy")
    repo = snapvault.init(place, password=PASSWORD, cache=work / "cache", state=work / "state").repository
    snapvault.add_key(repo, "maintainer", "driller", file=work / "key")
    names = [f"dataset-{i:04}" for i in range(datasets)]
    defaults = {
        "rpo": "24h", "rto": "4h", "sites": ["second"], "drill": {"every": "30d"}, "probe": {"kind": "sqlite"},
        "owner": "Ada Lovelace",
    }  # fmt: skip
    content = {"schema": 1, "defaults": defaults, "datasets": {n: {"source": f"/srv/{n}"} for n in names}}
    snapvault.import_register(repo, declare(content, "the bench"))
    now = datetime.now(UTC)
    (work / "source").write_text("rows\n" * 1000)
    for back in reversed(range(snapshots)):
        for name in names:
            snapvault.backup(repo, work / "source", dataset=name, time=now - back * DAY)
    snapvault.replicate(snapvault.Site(place), snapvault.Site(copy))
    with snapvault.open(copy, password=PASSWORD) as there:
        snapvault.attest(there, "second", read=True)
    snapvault.exchange_attestations(snapvault.Site(place), snapvault.Site(copy))
    declared = snapvault.read_register(repo)
    assert declared is not None
    newest = {s.dataset: s for s in repo.snapshots()}
    results = 0
    for day in range(DAYS, 0, -every):
        found = [drilled(declared.datasets[n], newest[n], now - day * DAY, i) for i, n in enumerate(names)]
        record_evidence(repo, found)
        results += len(found)
    return f"{datasets} datasets, {datasets * snapshots:,} snapshots, {results:,} results of drills"


def drilled(dataset: snapvault.Dataset, snapshot: snapvault.Snapshot, began: datetime, number: int) -> DrillResult:
    """A drill as it would have gone: one in fifty fails."""
    dead = number % 50 == 49
    steps = {**dict.fromkeys(STEPS["alive"], PASSED), "freshness": PASSED, "recovery": PASSED}
    steps |= {"probe": Outcome(FAIL, "table orders has 0 rows, and should have 1000 or more")} if dead else {}
    return DrillResult(
        dataset, "second" if number % 2 else "", "/srv/repository", "alive", began, began + timedelta(seconds=40),
        "drills.example.org", steps, f"{number:016x}", snapshot, files=120, bytes=80_000_000, times={
            "open": 300, "restore": 20_000, "compare": 4000, "probe": 900, "probe_controls": 1800, "control": 700,
            "total": 28_000,
        }, control=ControlResult(PASSED), probe=ProbeResult(steps["probe"]), versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
