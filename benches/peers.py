#!/usr/bin/env python3
"""Whole commands side by side: snapvault, restic, borg, replicat and the bare pipe, on corpora made from a recipe.

    python benches/peers.py                                   # all of it: some 45 GB of disk
    python benches/peers.py --corpora dump --rounds 5
    python benches/peers.py --corpus /usr/share               # a tree of your own, read in place
    python benches/peers.py --scale 0.01 --tools snapvault,pipe
    python benches/peers.py --redraw results.json

Run it as root on a quiet machine with Debian 12 (restic, rsync, zstd, the kernel's sources from apt; borg and replicat
from PyPI; snapvault from this checkout).  It imports nothing of snapvault.  Every step is done by all tools in turn
before the next step begins; before each one the page cache is warmed with what it will read and the disk is synced.
Each restored tree is compared with its source afterwards, which is not timed; a step that fails or differs gives no
figure and makes the exit code 1.  Wall time is the command's from start to exit, CPU time that of all its processes,
peak memory that of its biggest one, the size of a repository the sum of its files' lengths.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from peerbench import corpora, report
from peerbench.chart import chart
from peerbench.contest import Result, contest, need
from peerbench.install import tools, versions
from peerbench.measure import machine, own_peak
from peerbench.options import bench_parser
from peerbench.tools import ALL


def main() -> int:
    options = parse()
    if options.redraw:
        draw(json.loads(options.redraw.read_text()), options.redraw.with_suffix(".svg"))
        return 0
    work: Path = options.work.resolve()
    out = options.out or work
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    found = tools(options.tools, work, options.snapvault)
    facts: dict[str, Any] = {"machine": machine(work), "tools": versions(found)}
    own: Path | None = options.corpus
    chosen = corpora.load(options.corpora, work, options.scale) if own is None else [corpora.own(own)]
    wanted, free = need(chosen, len(found), options.rounds), shutil.disk_usage(work).free
    if wanted > free:
        raise SystemExit(
            f"this takes up to {wanted / 1e9:.0f} GB in {work}, where {free / 1e9:.0f} GB are free: --rounds, --tools"
        )
    facts["corpora"] = {c.name: c.facts() for c in chosen}
    print(json.dumps(facts, indent=1), flush=True)
    results: list[Result] = []
    runs = work / f"run-{time.time_ns()}"
    runs.mkdir()
    for number in range(1, options.rounds + 1):
        for corpus in chosen:
            results += contest(corpus, found, number, runs / f"{corpus.name}-{number}")
            write(facts, results, options.rounds, out)  # what was measured is not lost if a later round fails
    told = report.summary(results)
    print("\n".join(report.lines(told, report.judged(told))))
    print(f"\n{out / 'results.json'}, {out / 'results.svg'}", flush=True)
    if not options.keep:
        shutil.rmtree(runs)  # at the very end: removing big trees slows ext4 down for minutes
    return int(any(r.problem for r in results))


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="each with fresh repositories (default 3); 0: only make the corpora",
    )
    parser.add_argument(
        "--corpora", type=names(corpora.NAMES), default=list(corpora.NAMES), help="small,image,media,dump"
    )
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="this tree instead; the step 'changed' is left out")
    parser.add_argument("--tools", type=names(tuple(ALL)), default=list(ALL), help=",".join(ALL))
    parser.add_argument("--snapvault", metavar="COMMAND", help="use this instead of installing the checkout")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for results.json and results.svg (default: the work folder)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="of the corpora, for trying out; below 1 small files are seeded",
    )
    parser.add_argument("--keep", action="store_true", help="leave the logs and restored trees of the run")
    parser.add_argument("--redraw", type=Path, metavar="FILE", help="draw the chart of a results.json again, beside it")
    return parser.parse_args()


class names:
    """A list with commas, of known names."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def __call__(self, text: str) -> list[str]:
        chosen = text.split(",")
        unknown = set(chosen).difference(self.known)
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))} (known: {', '.join(self.known)})")
        return chosen


def write(facts: dict[str, Any], results: list[Result], rounds: int, out: Path) -> None:
    """results.json, with every single run, and the chart."""
    told = report.summary(results)
    whole = {
        "schema": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
        "rounds": rounds,
        "least visible peak": own_peak(),
        "summary": told,
        "ratios": report.ratios(told),
        "targets": report.judged(told),
        "runs": [r.to_dict() for r in results],
    }
    (out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    draw(whole, out / "results.svg")


def draw(whole: dict[str, Any], target: Path) -> None:
    """The chart of what is in a results.json."""
    about = {
        name: f"{c['recipe']}; {c['files']:,} file{'s' * (c['files'] != 1)}, {c['bytes'] / 1e6:,.0f} MB"
        for name, c in whole["corpora"].items()
    }
    host = whole["machine"]
    foot = f"{host['cores']} cores of {host['cpu']}, {host['file system']}; median of {whole['rounds']}"
    drawn = chart(whole["summary"], list(whole["tools"]), about, f"{foot}; encrypted; zstd 3; page cache warm")
    target.write_text(drawn)


if __name__ == "__main__":
    raise SystemExit(main())
