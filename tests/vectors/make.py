"""Writes the vectors of the format anew: crypto.json, records.json and rejected.json beside this file.

    python tests/vectors/make.py

Run it after a change of the format on purpose, and read the difference.  Everything comes from fixed seeds, but for
HPKE, whose encapsulation nobody can make deterministic: what it sealed is kept from the last run as long as it opens.
"""

import json
from pathlib import Path
from typing import Any

from make_crypto import crypto
from make_records import records
from make_rejected import rejected

HERE = Path(__file__).parent


def write(name: str, value: Any) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read(name: str) -> Any:
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    write("crypto.json", crypto(read("crypto.json")))
    write("records.json", records())
    write("rejected.json", rejected())
