"""The demo's command line."""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from snapvault.cli.text import harmless
from snapvault.demo.story import Row, Story
from snapvault.demo.trees import default_source, referee
from snapvault.foundation.errors import SnapvaultError


def main() -> int:
    """Run the story; 0 if everything was as promised."""
    if sys.argv[1:2] == ["incident"]:
        return _incident()
    options = _options()
    console = Console()
    keep = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="snapvault-demo-")
    rows: list[Row] = []
    with keep as folder:
        place = Path(folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        try:
            for row in Story(place.resolve(), options.source.resolve()).rows():
                rows.append(row)
                console.print(f"{_mark(row)} {escape(row.step)}", highlight=False)
        except (SnapvaultError, OSError) as e:
            print(f"snapvault.demo: {harmless(str(e))}", file=sys.stderr)
            return 1
    console.print(_table(rows))
    console.print(f"Compared by {referee()}." + (f"  Everything is in {options.keep}." if options.keep else ""))
    if not all(row.good for row in rows):
        print("snapvault.demo: not everything was as promised", file=sys.stderr)
        return 1
    return 0


def _incident() -> int:
    """The other story, which needs the extra ``demo``."""
    try:
        from snapvault.demo.incident_command import main as play
    except ModuleNotFoundError as e:
        print(f"snapvault.demo: {e}: pip install 'snapvault[demo]'", file=sys.stderr)
        return 2
    return play(sys.argv[2:])


def _options() -> argparse.Namespace:
    epilog = "'python -m snapvault.demo incident --help': another story, of hundreds of datasets and two sites."
    parser = argparse.ArgumentParser(prog="python -m snapvault.demo", description=__doc__, epilog=epilog)
    parser.add_argument("--source", type=Path, default=default_source(), help="the tree (default: Python's library)")
    parser.add_argument(
        "--keep", type=Path, help="work in this folder, which is new or empty, and leave everything there"
    )
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"{options.keep} is not empty")
    if not options.source.is_dir():
        parser.error(f"{options.source} is no folder")
    return options


def _mark(row: Row) -> str:
    return "[green]ok  [/green]" if row.good else "[red]FAIL[/red]"


def _table(rows: list[Row]) -> Table:
    table = Table(title="What was done, and what came of it")
    for name, align in (("", "left"), ("step", "left"), ("result", "left"), ("seconds", "right")):
        table.add_column(name, justify=align)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(_mark(row), escape(row.step), escape(harmless(row.result)), f"{row.seconds:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
