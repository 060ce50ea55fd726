"""Parquet files: every row group of every column is read."""

from pathlib import Path

import msgspec

from snapvault.assurance.probes import Common, Facts, NotRun, Patterns, ProbeFailed
from snapvault.assurance.probes.files import chosen


class Options(Common):
    """``path``: glob patterns; ``rows``: the least that there must be in all files together."""

    path: Patterns = msgspec.field(default_factory=lambda: ["**/*.parquet"])
    rows: int = 1


def run(root: Path, options: Options) -> Facts:
    """All files can be read."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as e:
        raise NotRun("pyarrow is not installed: pip install 'snapvault[probes]'") from e
    files, rows = chosen(root, options.path), 0
    for path in files:
        try:
            with ParquetFile(path, page_checksum_verification=True) as file:
                found = sum(batch.num_rows for batch in file.iter_batches())
                if found != file.metadata.num_rows:
                    raise OSError(f"it holds {found} rows, and states {file.metadata.num_rows}")
        except (ArrowException, OSError, ValueError) as e:
            raise ProbeFailed(f"{path.relative_to(root)}: {e}") from e
        rows += found
    if rows < options.rows:
        raise ProbeFailed(f"there are {rows} rows, and should be {options.rows} or more")
    return {"files": len(files), "rows": rows}
