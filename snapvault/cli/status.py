"""``snapvault status``"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

import snapvault
from snapvault.cli.common import status_code, verb
from snapvault.cli.settings import Settings
from snapvault.foundation.errors import InvalidInput

if TYPE_CHECKING:
    from snapvault.report.board import Board

READABLE = 0o644  # a web server or the node exporter may read it; what it says is what the board shows
WIDEST = 120  # columns


@click.command(short_help="The recoverability board: what can be brought back, by evidence.")
@click.option("--html", metavar="FILE", help="Write the board as one page, whole in itself.")
@click.option("--prometheus", metavar="FILE", help="Write it for the textfile collector of the node exporter.")
@verb
def status(settings: Settings, html: str | None, prometheus: str | None) -> int:
    """What can be brought back, by evidence: declared, backed up, replicated, intact, restored, alive.

    The worst first, each with the command to run next.  What was not tested is unknown, and never good.

    Exit code 20: what this rests on is damaged; 22: a drill failed; 21: an objective was breached, a copy is unanswered
    or a drill overdue; 3: something is unknown.

    \b
    snapvault status
    snapvault status --html board.html --prometheus /var/lib/node_exporter/snapvault.prom
    """
    with settings.open("status") as repository:
        board = snapvault.status(repository)
    if html is not None:
        from snapvault.report.html import draw as draw_page

        _write(html, draw_page(board))
    if prometheus is not None:
        from snapvault.report.prometheus import draw as draw_metrics

        _write(prometheus, draw_metrics(board))
    if settings.out.as_json:
        for state in board.states:
            settings.out.item(state.to_dict(), "")
    settings.out.summary(board.summary(), () if settings.out.as_json else _lines(board))
    return status_code(board.status)


def _lines(board: "Board") -> Iterable[str]:
    from snapvault.report.terminal import draw

    return draw(board, min(shutil.get_terminal_size().columns, WIDEST))


def _write(file: str, text: Iterable[str]) -> None:
    """Whole, or not at all: somebody may be reading it."""
    from snapvault.platform.durable import write_file

    path = Path(file)
    if not path.name or path.is_dir():
        raise InvalidInput(f"{file!r} is no name of a file")
    data = "".join(text).encode("utf-8", "backslashreplace")
    write_file(path.parent, path.name, [data], replace=True, mode=READABLE)
