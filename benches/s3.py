#!/usr/bin/env python3
"""snapvault and restic on a real S3 server (SeaweedFS) on this machine, with and without latency.

    python benches/s3.py                          # the small files of peers.py, 0 and 50 ms, three rounds
    python benches/s3.py --corpora dump --latency 50 --rounds 1

Run it as peers.py, in an environment with snapvault's extras `s3` and `bench`.  All requests go through a relay, which
adds the latency and counts them; the server, the relay and the tools share the machine's cores.  Every round has a new
bucket for each tool; a restore is compared with its source.
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
from peerbench.contest import difference
from peerbench.install import tools, versions
from peerbench.measure import machine, run, warm
from peerbench.options import bench_parser
from peerbench.store import KEY, REGION, SECRET, relay, seaweedfs
from peerbench.tools import BACKUPS, Case, Tool

STEPS = ("init", "first", "unchanged", "restore", "check")


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    program = f"{Path(sys.executable).with_name('snapvault')}"
    found = tools(["snapvault", "restic"], work, options.snapvault or program)
    facts = {"machine": machine(work), "tools": versions(found)}
    chosen = corpora.load(options.corpora, work, options.scale)
    print(json.dumps(facts), flush=True)
    results = []
    here = work / f"s3-{time.time_ns()}"
    with seaweedfs(here / "server") as server:
        for latency in options.latency:
            with relay(server, latency, here / f"relay-{latency}") as (port, counts):
                for number in range(options.rounds):
                    for corpus in chosen:
                        order = found if number % 2 == 0 else found[::-1]
                        results += Round(corpus, order, port, counts, here / f"{corpus.name}-{latency}-{number}").run(
                            latency
                        )
    (options.out or work).mkdir(parents=True, exist_ok=True)
    (options.out or work).joinpath("s3.json").write_text(json.dumps({**facts, "results": results}, indent=1))
    report(results)
    shutil.rmtree(here)
    return int(any(r["problem"] for r in results))


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--latency", type=lambda s: [int(n) for n in s.split(",")], default=[0, 50], metavar="MS[,MS]")
    parser.add_argument("--corpora", type=lambda s: s.split(","), default=["small"], help="small,image,media,dump")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X")
    parser.add_argument("--snapvault", metavar="COMMAND", help="use this instead of that of this environment")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser.parse_args()


class Round:
    """Each tool at each step, on a new bucket."""

    def __init__(self, corpus: corpora.Corpus, order: list[Tool], port: int, counts: Path, folder: Path) -> None:
        self._corpus, self._order, self._port, self._counts, self._folder = corpus, order, port, counts, folder

    def run(self, latency: int) -> list[dict[str, object]]:
        """What was measured."""
        cases = {}
        for tool in self._order:
            cases[tool.name] = case = Case(self._folder / tool.name, self._corpus.live)
            case.home.mkdir(parents=True)
            case.out.mkdir()
        results = []
        with self._corpus.shown():
            for step in STEPS:
                for tool in self._order:
                    result = self._step(step, tool, cases[tool.name])
                    results.append({"corpus": self._corpus.name, "latency": latency, **result})
        return results

    def _env(self, tool: Tool, case: Case) -> dict[str, str]:
        bucket, endpoint = f"{self._folder.name}-{tool.name}", f"http://127.0.0.1:{self._port}"
        place = {
            "SNAPVAULT_REPOSITORY": f"s3://{bucket}/repository",
            "RESTIC_REPOSITORY": f"s3:{endpoint}/{bucket}/repository",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
        }
        plain = {"PATH": os.environ["PATH"], "HOME": str(case.home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return {**plain, **tool.env(case), **place}

    def _step(self, step: str, tool: Tool, case: Case) -> dict[str, object]:
        command = tool.command(step, case)
        assert command is not None
        if step in BACKUPS:
            warm(Path(self._corpus.live))
        os.sync()
        before = self._counted()
        sample = run(command, self._env(tool, case), case.folder / f"{step}.log")
        problem = f"exit {sample.code}\n{sample.output}" if sample.code else ""
        if step == "restore" and not problem:
            problem = difference(Path(self._corpus.live), Path(f"{case.out}{self._corpus.live}"), exact=tool.exact)
        spent = {kind: n - before.get(kind, 0) for kind, n in self._counted().items()}
        requests = sum(n for kind, n in spent.items() if kind.isupper())
        print(
            f"{self._folder.name:16} {step:9} {tool.name:9} {sample.wall:7.2f} s {sample.cpu:7.2f} s CPU "
            f"{sample.peak / 1e6:5.0f} MB {requests:6} requests {spent.get('connections', 0):4} connections "
            f"{(spent.get('sent', 0) + spent.get('received', 0)) / 1e6:8.1f} MB {problem}",
            flush=True,
        )
        measured = {"wall": sample.wall, "cpu": sample.cpu, "peak": sample.peak, "traffic": spent}
        return {"step": step, "tool": tool.name, **measured, "requests": requests, "problem": problem}

    def _counted(self) -> dict[str, int]:
        time.sleep(0.7)  # until the relay has written what it counted
        found: dict[str, int] = json.loads(self._counts.read_text())
        return found


def report(results: list[dict[str, object]]) -> None:
    """Medians, and their ratio."""
    walls: dict[tuple[object, ...], dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        walls[r["corpus"], r["latency"], r["step"]][r["tool"]].append(float(str(r["wall"])))
    print()
    for (corpus, latency, step), by_tool in walls.items():
        ours, theirs = (statistics.median(by_tool[tool]) for tool in ("snapvault", "restic"))
        print(f"{corpus:8} {latency:3} ms  {step:9} {ours:7.2f} s  restic {theirs:7.2f} s  ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    sys.exit(main())
