"""The corpora of single-purpose files: a seeded tree, media, an SQL dump.  Each recipe fills folders first and second.

Scale 1 is the size that is reported; smaller ones are for trying out.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from peerbench.content import Content, blocks, stamp, stamp_folders, write

MB = 1_000_000


def seeded_tree(first: Path, second: Path, scale: float) -> str:
    """Small text files in nested folders, and a second version with edits, removals and additions."""
    content, count = Content("tree"), max(20, round(80_000 * scale))
    for number in range(count):
        size = min(300_000, int(content.draw.lognormvariate(8.6, 1.2)))
        write(first / f"{number // 400}" / f"{number // 20 % 20}" / f"file-{number}.c", content.text(size))
    stamp_folders(first)
    edit_tree(first, second)
    return f"seeded tree of {count:,} files"


def edit_tree(first: Path, second: Path) -> None:
    """A copy in which 5 % of the files are edited, 1 % removed and 1 % new."""
    shutil.copytree(first, second, symlinks=True)
    content = Content("edit")
    for path in sorted(p for p in second.rglob("*") if p.is_file() and not p.is_symlink()):
        fate = content.draw.random()
        if fate < 0.05:
            write(path, content.edited(path.read_bytes()))
        elif fate < 0.06:
            path.unlink()
        elif fate < 0.07:
            write(path.with_name(path.name + ".new"), content.text(content.draw.randrange(100, 30_000)))
    stamp_folders(second)


def media(first: Path, second: Path, scale: float) -> str:
    """Files of 1 to 60 MB that no compressor makes smaller; they do not change."""
    content, left, number = Content("media"), int(750 * MB * scale), 0
    while left > 0:
        size = min(left, max(10_000, int(content.draw.randrange(1 * MB, 60 * MB) * min(1.0, scale * 4))))
        write(first / f"album-{number % 5}" / f"{number:04}.jpg", *(content.noise(n) for n in blocks(size)))
        left, number = left - size, number + 1
    stamp_folders(first)
    return f"{number} incompressible files of up to 60 MB"


def dump(first: Path, second: Path, scale: float) -> str:
    """Rows as pg_dump writes them; in the second version runs of rows are updated or deleted, and 1 % is added."""
    content, size = Content("dump"), int(500 * MB * scale)
    fates, number, written = random.Random("rows"), 0, 0
    first.mkdir()
    second.mkdir()
    with (first / "shop.sql").open("wb") as before, (second / "shop.sql").open("wb") as after:
        before.write(_HEAD)
        after.write(_HEAD)
        while written < size:
            rows = list(_rows(content, number, 5000))
            joined = "".join(rows).encode()
            before.write(joined)
            _change(content, fates, number, rows)
            after.write("".join(rows).encode())
            number, written = number + len(rows), written + len(joined)
        before.write(b"\\.\n")
        after.write("".join(_rows(content, number, number // 100)).encode())
        after.write(b"\\.\n")
    for folder in (first, second):
        stamp(folder / "shop.sql")
        stamp_folders(folder)
    return f"SQL dump of {number:,} rows"


_HEAD = (
    b"-- PostgreSQL database dump\nCOPY public.orders (id, customer, placed, state, total, article, note) FROM stdin;\n"
)


def _rows(content: Content, number: int, count: int) -> Iterator[str]:
    draw = content.draw
    notes = iter(draw.choices(content.phrases, k=3 * count))
    for row in range(number, number + count):
        minutes = row // 7
        day, hour = f"2026-{minutes // 40_320 % 12 + 1:02}-{minutes // 1440 % 28 + 1:02}", minutes // 60 % 24
        state = ("shipped", "shipped", "open", "returned")[draw.getrandbits(2)]
        total, article = draw.getrandbits(15) / 100, f"{draw.getrandbits(40):010x}"
        note = (next(notes) + next(notes) + next(notes)).replace("\n", " ").rstrip()
        yield (
            f"{row}\t{draw.getrandbits(17)}\t{day} {hour:02}:{minutes % 60:02}\t{state}\t{total}\t{article}\t{note}\n"
        )


def _change(content: Content, fates: random.Random, number: int, rows: list[str]) -> None:
    """Somewhere in these rows a few neighbours are updated, now and then some are deleted."""
    at = fates.randrange(len(rows) - 50)
    for i in range(at, at + fates.randrange(1, 50)):
        columns = rows[i].split("\t")
        columns[3], columns[4] = "returned", f"{fates.getrandbits(15) / 100}"
        rows[i] = "\t".join(columns)
    if fates.random() < 0.1:
        at = fates.randrange(len(rows) - 50)
        del rows[at : at + fates.randrange(1, 50)]
