#!/usr/bin/env python3
"""A full drill beside a bare restore of the same snapshot, and beside a restore and the removal of what it wrote.

    python benches/drill.py                                  # small files and a disk image, three rounds
    python benches/drill.py --latency 0,50                   # and from a second site: SeaweedFS, so far away
    python benches/drill.py --corpora small --rounds 1 --scale 0.1

Run it as peers.py, whose corpora it uses (for a second site, with snapvault's extra `s3`).  Both start with an empty
cache, in turns.  The drill restores, reads all of it back and compares it with the record, damages something of its
own and sees it caught, signs what it found, and removes what it restored; the restore stops once everything is on its
place.  The removal after the restore is measured by itself.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from peerbench import corpora
from peerbench.install import tools, versions
from peerbench.measure import machine, run
from peerbench.options import bench_parser
from peerbench.store import KEY, REGION, SECRET, relay, seaweedfs
from peerbench.tools import Case, Tool


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tool = tools(["snapvault"], work, options.snapvault or f"{Path(sys.executable).with_name('snapvault')}")[0]
    facts = {"machine": machine(work), "tools": versions([tool])}
    here = work / f"drill-{time.time_ns()}"
    chosen = corpora.load(options.corpora, work, options.scale)
    results = [r for c in chosen for r in Bench(tool, here / c.name, c).rounds(options.rounds)]
    if options.latency:
        with seaweedfs(here / "server") as server:
            for latency in options.latency:
                with relay(server, latency, here / f"relay-{latency}") as (port, _):
                    for corpus in chosen:
                        bench = Bench(tool, here / f"{corpus.name}-{latency}", corpus, port, latency)
                        results += bench.rounds(options.rounds)
    (options.out or work).mkdir(parents=True, exist_ok=True)
    (options.out or work).joinpath("drill.json").write_text(json.dumps({**facts, "results": results}, indent=1))
    report(results)
    shutil.rmtree(here)
    return 0


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--corpora", type=lambda s: s.split(","), default=["small", "image"], help="small,image,media")
    parser.add_argument("--latency", type=lambda s: [int(n) for n in s.split(",")], default=[], metavar="MS[,MS]")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X")
    parser.add_argument("--snapvault", metavar="COMMAND", help="use this instead of that of this environment")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser.parse_args()


class Bench:
    """One repository with one snapshot, in a folder or, behind a port of this machine, in a bucket."""

    def __init__(
        self, tool: Tool, folder: Path, corpus: corpora.Corpus, port: int | None = None, latency: int | None = None
    ) -> None:
        self._tool, self._folder, self._port = tool, folder, port
        self._name, self._shown = corpus.name, corpus.name if latency is None else f"{corpus.name} {latency} ms"
        self._case = Case(folder / "repository", "")
        for place in (self._case.home, self._case.out):
            place.mkdir(parents=True)
        self._must("init", "--recovery-key-file", str(self._case.home / "key"))
        with corpus.shown():
            self._must("backup", "--dataset", corpus.name, corpus.live)

    def rounds(self, number: int) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for n in range(number):
            for measure in (self._restore, self._drill) if n % 2 == 0 else (self._drill, self._restore):
                found += measure()
        return found

    def _restore(self) -> list[dict[str, object]]:
        out = self._case.out / "restored"
        restored = self._measure("restore", "restore", f"{self._name}@latest", "--target", str(out))
        began = time.perf_counter()
        shutil.rmtree(out)
        removal = time.perf_counter() - began
        return [restored, {**restored, "step": "restore, removal", "wall": float(str(restored["wall"])) + removal}]

    def _drill(self) -> list[dict[str, object]]:
        return [self._measure("drill", "drill", self._name, "--level", "full", "--scratch", str(self._case.out))]

    def _measure(self, step: str, *argv: str) -> dict[str, object]:
        os.sync()
        sample = run([*self._tool.program, "-q", "--no-cache", *argv], self._env(), self._folder / "log")
        if sample.code:
            raise SystemExit(f"{argv}: exit {sample.code}\n{sample.output}")
        print(
            f"{self._shown:12} {step:8} {sample.wall:7.2f} s {sample.cpu:7.2f} s CPU {sample.peak / 1e6:5.0f} MB",
            flush=True,
        )
        return {
            "corpus": self._shown,
            "step": step,
            "wall": sample.wall,
            "cpu": sample.cpu,
            "peak": sample.peak,
        }

    def _must(self, *argv: str) -> None:
        done = run([*self._tool.program, "--quiet", *argv], self._env(), self._folder / "log")
        if done.code:
            raise SystemExit(f"{argv}: exit {done.code}\n{done.output}")

    def _env(self) -> dict[str, str]:
        plain = {"PATH": os.environ["PATH"], "HOME": str(self._case.home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        place = {
            "SNAPVAULT_REPOSITORY": f"s3://{self._folder.name}/repository",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
        }
        return {**plain, **self._tool.env(self._case), **({} if self._port is None else place)}


def report(results: list[dict[str, object]]) -> None:
    """Medians with their spread, and what each is of the restore."""
    walls: dict[object, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        walls[r["corpus"]][r["step"]].append(float(str(r["wall"])))
    print()
    for corpus, by_step in walls.items():
        yardstick = statistics.median(by_step["restore"])
        for step, seconds in by_step.items():
            median = statistics.median(seconds)
            print(
                f"{corpus!s:12} {step!s:16} {median:7.2f} s  ({min(seconds):.2f} to {max(seconds):.2f}) "
                f"{median / yardstick:6.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())
