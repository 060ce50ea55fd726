"""Words for people, the same in messages of the library and of the command line."""


def count(number: int, noun: str) -> str:
    """``1 file``, ``12,345 files``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"
