"""A Python function of your own: whatever it raises says that the data is not alive."""

from importlib import import_module
from pathlib import Path

from snapvault.assurance.probes import Common, Facts, NotRun, ProbeFailed


class Options(Common):
    """``entry``: ``package.module:function``, called with the restored folder as a pathlib.Path."""

    entry: str


def run(root: Path, options: Options) -> Facts:
    """Alive unless it raises, or answers False.  A dict with counts or words goes into the evidence."""
    module, _, function = options.entry.partition(":")
    try:
        call = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise NotRun(f"{options.entry!r} cannot be imported: {e}") from e
    answer = call(root)
    if answer is False:
        raise ProbeFailed(f"{options.entry} answered False")
    facts = answer if isinstance(answer, dict) else {}
    return {str(k): v if type(v) is int else str(v) for k, v in facts.items()}
