"""The corpus of one disk image: an ext4 file system filled from a seed, and the same after files in it were edited.

Contents and places are the same each time; a few hundred bytes of inode times are not, for mkfs takes them from here.
"""

import os
import shutil
import subprocess
from pathlib import Path

from peerbench.content import EPOCH, Content, stamp, stamp_folders, write

_UUID = "5eed0000-0000-4000-8000-000000000001"
_LEAST = 24_000_000  # bytes; a smaller ext4 has no room beside its own tables
_SIZES = (0, 2000, 20_000, 200_000, 2_000_000, 12_000_000)  # bounds of file sizes, as in a system's folders
_SHARES = (30, 40, 20, 8, 2)


def image(first: Path, second: Path, scale: float) -> str:
    """A 1.5 GB image, about three quarters full; without holes, as an image that has been in use."""
    size = max(_LEAST, int(1_500_000_000 * scale)) // 4096 * 4096
    content, scratch = Content("image"), first.with_name("scratch")
    files = _fill(content, scratch / "root", int(size * 0.75) if size > _LEAST else size // 3)
    raw = scratch / "disk.img"
    options = f"hash_seed={_UUID},lazy_itable_init=0,lazy_journal_init=0"
    _tool(
        "mkfs.ext4",
        "-q",
        "-F",
        "-b",
        "4096",
        "-U",
        _UUID,
        "-E",
        options,
        "-d",
        scratch / "root",
        raw,
        f"{size // 1024}k",
    )
    _publish(raw, first)
    script = _edits(content, scratch, files)
    _tool("debugfs", "-w", "-f", script, raw)
    _tool("e2fsck", "-f", "-n", raw)
    _publish(raw, second)
    shutil.rmtree(scratch)
    return f"ext4 image with {len(files):,} files"


def _fill(content: Content, root: Path, total: int) -> list[Path]:
    files: list[Path] = []
    left = total
    while left > 0:
        kind = content.draw.choices(range(len(_SHARES)), weights=_SHARES)[0]
        size = min(left, total // 8, content.draw.randrange(_SIZES[kind], _SIZES[kind + 1]))
        path = root / f"d{len(files) // 1000}" / f"d{len(files) // 40 % 25}" / f"f{len(files)}"
        write(path, content.mixed(size))
        files.append(path)
        left -= size + 4096
    stamp_folders(root)
    return files


def _edits(content: Content, scratch: Path, files: list[Path]) -> Path:
    """Commands for debugfs: of one file in twelve most are edited, some go, some come."""
    lines = []
    for number, path in enumerate(content.draw.sample(files, max(3, len(files) // 12))):
        inside = f"/{path.relative_to(scratch / 'root')}"
        lines.append(f"rm {inside}")
        if number % 10 < 6:
            write(scratch / "new" / str(number), content.edited(path.read_bytes()))
            lines.append(f"write {scratch / 'new' / str(number)} {inside}")
        elif number % 10 < 8:
            write(scratch / "new" / str(number), content.mixed(content.draw.randrange(1000, 60_000)))
            lines.append(f"write {scratch / 'new' / str(number)} {inside}.new")
    script = scratch / "edits"
    script.write_text("\n".join(lines) + "\n")
    return script


def _publish(raw: Path, folder: Path) -> None:
    folder.mkdir()
    _tool("cp", "--sparse=never", raw, folder / "disk.img")
    stamp(folder / "disk.img")
    stamp_folders(folder)


def _tool(*command: str | Path) -> None:
    env = {**os.environ, "E2FSPROGS_FAKE_TIME": str(EPOCH), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
