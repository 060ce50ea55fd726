#!/usr/bin/env python3
"""Replication beside `rclone copy` of the same objects, a restore from each end, and a replication with nothing to do.

    python benches/replicate.py                       # a disk image and media, 0 and 50 ms, three rounds
    python benches/replicate.py --rounds 1 --latency 0 --scale 0.1

Run it as peers.py, whose corpora it uses, in an environment with snapvault's extras `s3` and `test` (for rclone and
SeaweedFS). The repository goes to another folder, and to SeaweedFS through a relay that adds the latency, by `site
pull` and `site push --no-attest` (to S3 through s3fs, and through obstore), and by `rclone copy` with its defaults, in
turns. snapvault verifies every object by its hash and, in folders, syncs it to disk; rclone does neither (to S3 it
sends an MD5 that the server verifies). Restores are compared with the source. Nothing to do: a place with so many
objects (packs of one block beside the real ones), of which a second one has them all.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from peerbench import corpora
from peerbench.contest import difference
from peerbench.install import tools, versions
from peerbench.measure import Sample, bytes_of, files_of, machine, run
from peerbench.options import bench_parser
from peerbench.store import KEY, REGION, SECRET, relay, seaweedfs
from peerbench.tools import Case, Tool

BLOCK = 4096


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tool = tools(["snapvault"], work, options.snapvault or f"{Path(sys.executable).with_name('snapvault')}")[0]
    rclone = str(Path(sys.executable).with_name("rclone"))
    told = subprocess.run([rclone, "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    facts = {"machine": machine(work), "tools": {**versions([tool]), "rclone": told}}
    here = work / f"replicate-{time.time_ns()}"
    bench = Bench(tool, rclone, here, corpora.load(options.corpora, work, options.scale))
    print(json.dumps({**facts, "repository": bench.size}), flush=True)
    bench.folders(options.rounds)
    bench.restores(options.rounds)
    with seaweedfs(here / "server") as server:
        for latency in options.latency:
            with relay(server, latency, here / f"relay-{latency}") as (port, _):
                bench.store(port, latency, options.rounds)
    bench.nothing_to_do(options.objects, options.rounds)
    (options.out or work).mkdir(parents=True, exist_ok=True)
    (options.out or work).joinpath("replicate.json").write_text(
        json.dumps({**facts, "repository": bench.size, "results": bench.results}, indent=1)
    )
    report(bench.results)
    shutil.rmtree(here)
    return int(any(r["problem"] for r in bench.results))


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--latency", type=lambda s: [int(n) for n in s.split(",")], default=[0, 50], metavar="MS[,MS]")
    parser.add_argument("--corpora", type=lambda s: s.split(","), default=["image", "media"], help="small,image,media")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X")
    parser.add_argument("--objects", type=int, default=100_000, metavar="N", help="in the place with nothing to do")
    parser.add_argument("--snapvault", metavar="COMMAND", help="use this instead of that of this environment")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser.parse_args()


class Bench:
    """One repository, and the ways of its objects."""

    def __init__(self, tool: Tool, rclone: str, folder: Path, chosen: list[corpora.Corpus]) -> None:
        self._tool, self._rclone, self._folder = tool, rclone, folder
        self.results: list[dict[str, object]] = []
        self._case = Case(folder / "first", "")
        for place in (self._case.home, self._case.out):
            place.mkdir(parents=True)
        self._corpora = chosen
        self._must([*tool.program, "--quiet", "init", "--recovery-key-file", str(self._case.home / "key")])
        for corpus in chosen:
            with corpus.shown():
                self._must([*tool.program, "--quiet", "backup", "--dataset", corpus.name, corpus.live])
        self.size = {"objects": len(files_of(self._case.repo)), "bytes": bytes_of(self._case.repo)}

    def folders(self, rounds: int) -> None:
        """From folder to folder."""
        for number in range(rounds):
            places = {name: self._folder / f"{name}-{number}" for name in ("snapvault", "rclone")}
            commands = {
                "snapvault": [*self._tool.program, "-q", "-r", str(places["snapvault"]), "site", "pull", self._source],
                "rclone": [self._rclone, "copy", self._source, str(places["rclone"])],
            }
            for name in in_turns(commands, number):
                self._measure("folder", name, commands[name])
            self._restored_from = places["snapvault"]
            if number + 1 < rounds:
                shutil.rmtree(places["snapvault"])
            shutil.rmtree(places["rclone"])

    def restores(self, rounds: int) -> None:
        """From the copy, and from what it was copied of."""
        for number in range(rounds):
            places = {"second site": str(self._restored_from), "first site": self._source}
            for name in in_turns(places, number):
                for corpus in self._corpora:
                    with corpus.shown():
                        self._restore(corpus, name, places[name])

    def _restore(self, corpus: corpora.Corpus, name: str, place: str) -> None:
        out = self._case.out / name
        command = [*self._tool.program, "-q", "-r", place, "restore", "--no-sites", f"{corpus.name}@latest"]
        self._measure(
            f"restore {corpus.name}", name, [*command, "--target", str(out)],
            lambda: difference(Path(corpus.live), Path(f"{out}{corpus.live}"), exact=self._tool.exact),
        )  # fmt: skip
        shutil.rmtree(out)

    def store(self, port: int, latency: int, rounds: int) -> None:
        """To an S3 server."""
        for number in range(rounds):
            commands = {name: self._push(f"{name}-{latency}-{number}", port) for name in ("snapvault", "obstore")}
            bucket = f"relay:rclone-{latency}-{number}"
            self._must([self._rclone, "mkdir", bucket], port)
            commands["rclone"] = [self._rclone, "copy", self._source, f"{bucket}/repository"]
            for name in in_turns(commands, number):
                self._measure(f"S3, {latency} ms", name, commands[name], port=port)

    def _push(self, bucket: str, port: int) -> list[str]:
        """The command, once the site is known."""
        options = self._folder / "options.toml"
        options.write_text('schema = 1\n["s3://obstore"]\ndriver = "obstore"\n')
        program = [*self._tool.program, "-q", "--storage-options", str(options)]
        self._must([*program, "site", "add", bucket, f"s3://{bucket}/repository"], port)
        return [*program, "site", "push", "--no-attest", bucket]

    def nothing_to_do(self, objects: int, rounds: int) -> None:
        """A second replication where both ends have the same many objects."""
        target = self._restored_from
        for number in range(objects - int(str(self.size["objects"]))):
            body = number.to_bytes(8, "big") * (BLOCK // 8)
            name = hashlib.sha256(body).hexdigest()  # any name of that form: what both ends have is not read
            for place in (self._case.repo, target):
                path = Path(place, "packs", name[:2], name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
        os.sync()
        for _ in range(rounds):
            self._measure("nothing to do", "snapvault", [
                *self._tool.program, "-q", "-r", str(target), "site", "pull", self._source,
            ])  # fmt: skip

    @property
    def _source(self) -> str:
        return str(self._case.repo)

    def _env(self, port: int | None) -> dict[str, str]:
        plain = {"PATH": os.environ["PATH"], "HOME": str(self._case.home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        endpoint = f"http://127.0.0.1:{port}"
        relayed = {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint, "RCLONE_CONFIG_RELAY_TYPE": "s3", "RCLONE_CONFIG_RELAY_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_RELAY_ENV_AUTH": "true", "RCLONE_CONFIG_RELAY_ENDPOINT": endpoint,
        }  # fmt: skip
        env = {**plain, **self._tool.env(self._case), "RCLONE_CONFIG": "/dev/null", **(relayed if port else {})}
        return env

    def _must(self, command: list[str], port: int | None = None) -> None:
        done = run(command, self._env(port), self._folder / "log")
        if done.code:
            raise SystemExit(f"{command}: exit {done.code}\n{done.output}")

    def _measure(
        self, step: str, name: str, command: list[str], compare: Callable[[], str] = str, port: int | None = None
    ) -> None:
        os.sync()
        env = self._env(port)
        if "pull" in command:  # needs no key
            env.pop("SNAPVAULT_PASSWORD")
        sample: Sample = run(command, env, self._folder / "log")
        problem = f"exit {sample.code}\n{sample.output}" if sample.code else compare()
        print(
            f"{step:16} {name:12} {sample.wall:7.2f} s {sample.cpu:7.2f} s CPU {sample.peak / 1e6:5.0f} MB {problem}",
            flush=True,
        )
        measured = {"wall": sample.wall, "cpu": sample.cpu, "peak": sample.peak}
        self.results.append({"step": step, "tool": name, **measured, "problem": problem})


def in_turns(names: dict[str, object] | dict[str, str] | dict[str, list[str]], number: int) -> list[str]:
    """Who is first changes with every round."""
    return list(names) if number % 2 == 0 else list(names)[::-1]


def report(results: list[dict[str, object]]) -> None:
    """Medians with their spread, and what each is of the last one of its step."""
    walls: dict[object, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        walls[r["step"]][r["tool"]].append(float(str(r["wall"])))
    print()
    for step, by_tool in walls.items():
        yardstick = next((statistics.median(w) for t, w in by_tool.items() if t in ("rclone", "first site")), None)
        for tool, seconds in by_tool.items():
            median = statistics.median(seconds)
            ratio = f"{median / yardstick:6.2f}" if yardstick else ""
            print(f"{step!s:16} {tool!s:12} {median:7.2f} s  ({min(seconds):.2f} to {max(seconds):.2f}) {ratio}")


if __name__ == "__main__":
    sys.exit(main())
