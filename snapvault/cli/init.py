"""``snapvault init``"""

import contextlib
import hashlib
import os
from collections.abc import Iterator

import click

import snapvault
from snapvault.cli.common import verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import parse_size
from snapvault.foundation.errors import InvalidInput, StoreFull
from snapvault.repository.create import rescue_files

ROOM = 4096  # bytes; more than a key takes
HINT = "free space there, or name another place"
RESCUE_PROGRAM = "rescue-1.py"


@click.command()
@click.option("--recovery-key-file", metavar="F", help="Write the recovery key to the new file F, not here.")
@click.option("--chunk-size", metavar="SIZE", help="Average size of a chunk: a power of two, default 64K.")
@verb
def init(settings: Settings, recovery_key_file: str | None, chunk_size: str | None) -> int:
    """Make a repository.

    Asks for a password twice, and shows the recovery key once.  Print that key: it opens everything, also when the
    password is lost.

    \b
    snapvault -r /mnt/disk/repo init
    snapvault -r s3://backups/repo init --recovery-key-file /root/recovery.key
    """
    chunking = snapvault.Chunking() if chunk_size is None else _chunking(parse_size(chunk_size))
    with contextlib.ExitStack() as stack:
        # The file is made first: a key that cannot be written down must not come into being.
        key_file = stack.enter_context(new_private_file(recovery_key_file)) if recovery_key_file else None
        try:
            result = snapvault.init(settings.url(), chunking=chunking, **settings.access(new=True))
        except StoreFull as e:
            hint = f"{HINT}; a new run with the same password takes up what is there"
            raise StoreFull(e.message, hint=hint, affected=e.affected) from e
        with result.repository as repository:
            if key_file is not None:
                write_text(key_file, result.recovery_key + "\n")
            _show(settings, repository, result.recovery_key, recovery_key_file)
    return 0


def _chunking(average: int) -> snapvault.Chunking:
    return snapvault.Chunking(average // 4, average, average * 4)


@contextlib.contextmanager
def new_private_file(path: str) -> Iterator[int]:
    """A new file of mode 0600 for ``write_text``; an exception in the block removes it.  InvalidInput if it exists.

    It has its space already: what is to be written there cannot be had again.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput(f"{path} exists already", hint="name a new file") from None
    except OSError as e:
        raise InvalidInput(f"{path} cannot be written: {e.strerror}", hint=HINT) from e
    try:
        try:
            _write_all(fd, b"\n" * ROOM)
        except OSError as e:
            raise InvalidInput(f"{path} cannot be written: {e.strerror}", hint=HINT) from e
        yield fd
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def write_text(fd: int, text: str) -> None:
    """Write over the room that ``new_private_file`` made, and fsync."""
    os.lseek(fd, 0, os.SEEK_SET)
    _write_all(fd, text.encode())
    os.ftruncate(fd, len(text.encode()))


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def _show(settings: Settings, repository: snapvault.Repository, key: str, file: str | None) -> None:
    rescue = hashlib.sha256(rescue_files()[RESCUE_PROGRAM]).hexdigest()
    content = {"repository": settings.url(), "id": repository.id, "rescue_sha256": rescue, "status": "ok"}
    if file is not None:
        where = [f"The recovery key is in {file}.", "Print it or move it to a safe place, away from this machine."]
        content["recovery_key_file"] = file
    else:
        where = ["Recovery key, shown this once; print it and keep it away from this machine:", "", key]
        content["recovery_key"] = key
    settings.out.summary(
        content,
        [
            f"Made the repository {repository.id[:8]} at {settings.url()}.", "", *where, "",
            "It opens everything, without any password.  Whoever has lost both has lost the data.",
            f"SHA-256 of {RESCUE_PROGRAM} in the repository, to be noted beside the key:", f"  {rescue}",
        ],
    )  # fmt: skip
