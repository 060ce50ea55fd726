"""What the command lines of all benches have in common."""

import argparse


def bench_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring: its first sentence, and the rest as it stands there."""
    described, _, rest = str(doc).partition("\n\n")
    return argparse.ArgumentParser(
        description=described, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
