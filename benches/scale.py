#!/usr/bin/env python3
"""Very many files and chunks: what a backup, an open, a check and a partial restore cost for each million of them.

    python benches/scale.py                                   # 2 million files, 10 million blobs: 35 GB of disk
    python benches/scale.py --files 20000                     # a hundredth
    python benches/scale.py --files 20000,200000,2000000      # whether the cost of each stays the same

Run it on a quiet machine with the environment that snapvault is installed in.  A tree of files of about 5 KB is made
from a seed and backed up in chunks of about 1 KiB, five a file, which makes the index of a repository that would hold
a hundred times as much with the usual chunks.  At the end all but a hundredth is forgotten and pruned.  Every step is
a command of its own; the restore and the opens are compared with what they should give.  Wall time is from start to
exit, peak memory that of the process.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from peerbench.measure import bytes_of, machine, run
from peerbench.options import bench_parser

PASSWORD = "scale"
IN_FOLDER = 200
CHUNKING = (256, 1024, 4096)  # bytes: least, average, most
OPENED = """
import sys, time
begin = time.perf_counter()
import snapvault
with snapvault.open(sys.argv[1], keys=lambda: open(sys.argv[2], "rb").read(), cache=sys.argv[3], state=None) as repo:
    opened = time.perf_counter()
    index = repo.vault.index()
    looked = time.perf_counter()
    # Not getrusage: that counts what the process had before exec, so that of its parent.
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    with repo.snapshot("latest").open(sys.argv[4]) as file:
        data = file.read()
    read = time.perf_counter()
assert data == open(sys.argv[4], "rb").read()
print(opened - begin, looked - opened, read - looked, peak * 1024, sum(map(len, index.tables)))
"""


def main() -> int:
    options = parse()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    facts = machine(work)
    print(json.dumps(facts), flush=True)
    rounds = [Round(work / f"{count}", count).run() for count in options.files]
    (work / "scale.json").write_text(json.dumps({"machine": facts, "rounds": rounds}, indent=1))
    print(f"\n{work / 'scale.json'}")
    if not options.keep:
        for count in options.files:
            shutil.rmtree(work / f"{count}")
    return 0


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--files", type=_numbers, default=[2_000_000], metavar="N[,N...]", help="default 2000000")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-scale"), metavar="DIR")
    parser.add_argument(
        "--keep", action="store_true", help="leave trees and repositories; the next run takes the trees"
    )
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


class Round:
    """One tree and its repository."""

    def __init__(self, home: Path, files: int) -> None:
        self._home, self._files = home, files
        self._tree, self._repository, self._cache = home / "tree", home / "repository", home / "cache"
        self._key = home / "key"
        self._env = {**os.environ, "SNAPVAULT_PASSWORD": PASSWORD, "SNAPVAULT_REPOSITORY": str(self._repository)}
        self._env |= {"SNAPVAULT_CACHE_DIR": str(self._cache), "SNAPVAULT_STATE_DIR": str(home / "state")}
        self._found: dict[str, object] = {"files": files}

    def run(self) -> dict[str, object]:
        """Every step; what was measured."""
        print(f"\n{self._files:,} files")
        if not (self._home / "made").exists():
            # A process of its own: the memory of the one that starts a command counts as the command's.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                pool.submit(make_tree, self._tree, self._files).result()
            (self._home / "made").touch()
        for name in ("repository", "cache", "cold", "state", "restored", "key"):
            left = self._home / name
            left.unlink() if left.is_file() else shutil.rmtree(left, ignore_errors=True)
        self._found["tree_bytes"] = bytes_of(self._tree)
        self._init()
        backup = ["backup", "--dataset", "d", str(self._tree), "--quiet"]
        self._step("first backup", backup)
        self._step("unchanged", backup)
        self._found["repository_bytes"] = bytes_of(self._repository)
        self._found["index_bytes"] = bytes_of(self._repository / "index")
        self._opened("open, no cache", "cold")
        self._opened("open, warm cache", "cold")
        self._step("check", ["check"])
        self._step("check --read-data", ["check", "--read-data"])
        part = next(self._tree.glob("*/*"))
        target = self._home / "restored"
        self._step("restore of a part", ["restore", f"d@latest:{part}", "--target", str(target)])
        expect_same(part, target)
        self._step("backup of a part", ["backup", "--dataset", "part", str(next(self._tree.iterdir())), "--quiet"])
        forget = ["forget", "--undelete-window", "0h", "--quiet"]
        self._step("forget one of two", [*forget, "--dataset", "d", "--keep-last", "1"])
        self._step("prune that frees nothing", ["prune", "--max-unused", "0%", "--quiet"])
        self._step("forget all but a part", [*forget, "d@latest"])
        self._step("prune of nearly all", ["prune", "--max-unused", "0%", "--quiet"])
        self._step("check what is left", ["check", "--read-data"])
        return self._found

    def _init(self) -> None:
        """A repository with small chunks, and a key file, which needs no password's hash."""
        made = (
            "import snapvault, sys\n"
            "from snapvault import Chunking\n"
            f"r = snapvault.init(sys.argv[1], password={PASSWORD!r}, chunking=Chunking(*{CHUNKING})).repository\n"
            "snapvault.add_key(r, 'reader', 'scale', file=sys.argv[2])\n"
        )
        subprocess.run([sys.executable, "-c", made, self._repository, self._key], check=True)

    def _opened(self, name: str, cache: str) -> None:
        """The library alone: open, load the index (and how much memory that took), read one file."""
        some = str(next(self._tree.glob("*/*/*")))
        folder = self._home / cache
        text = self._python(OPENED, self._repository, self._key, folder, some)
        opened, index, read, peak, blobs = text.split()
        self._found["blobs"] = int(blobs)
        self._found[name] = {"open": float(opened), "index": float(index), "read": float(read), "peak": int(peak)}
        print(
            f"  {name:20} {float(opened):8.2f} s to open, {float(index):.2f} s for the index of {int(blobs):,} blobs, "
            f"{int(peak) / 1e6:.0f} MB, {float(read):.2f} s for a file",
            flush=True,
        )

    def _python(self, code: str, *args: object) -> str:
        command = [sys.executable, "-c", code, *map(str, args)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _step(self, name: str, words: Sequence[str]) -> None:
        os.sync()
        sample = run([sys.executable, "-m", "snapvault", *words], self._env, self._home / "log")
        if sample.code:
            raise SystemExit(f"{name}: exit code {sample.code}\n{sample.output}")
        self._found[name] = {"wall": sample.wall, "cpu": sample.cpu, "peak": sample.peak}
        each = sample.wall / self._files * 1e6
        cost = f"{sample.cpu:.2f} s of CPU; {each:.1f} us a file"
        print(f"  {name:20} {sample.wall:8.2f} s ({cost}), {sample.peak / 1e6:.0f} MB", flush=True)


def make_tree(root: Path, files: int) -> None:
    """Files of 1 to 9 KB of text that zstd makes about two and a half times smaller, 200 in a folder."""
    draw = random.Random(files)
    words = ["".join(draw.choices("etaoinshrdlucm", k=draw.randrange(2, 11))) for _ in range(3000)]
    text = " ".join(draw.choices(words, weights=range(3000, 0, -1), k=1 << 20)).encode()
    for number in range(files):
        if number % IN_FOLDER == 0:
            folder = root / f"{number // IN_FOLDER // 100:03}" / f"{number // IN_FOLDER % 100:02}"
            folder.mkdir(parents=True)
        start, size = draw.randrange(len(text) - 9000), draw.randrange(1000, 9001)
        # The number in every line, so that no chunk is in two files.
        lines = [b"%d %s" % (number, text[at : at + 120]) for at in range(start, start + size, 120)]
        (folder / f"{number}").write_bytes(b"\n".join(lines))


def expect_same(source: Path, restored: Path) -> None:
    """Every file below."""
    for path in source.rglob("*"):
        if path.is_file() and path.read_bytes() != (restored / path.relative_to(source)).read_bytes():
            raise SystemExit(f"{path} came back otherwise")


if __name__ == "__main__":
    sys.exit(main())
