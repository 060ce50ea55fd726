"""A table as it is handed on: a CSV file, and beside it a data package that describes it.

The probe of such a dataset: ``python`` with ``snapvault.demo.tables:read``.
"""

import csv
import hashlib
import json
from pathlib import Path
from random import Random

DESCRIPTOR, DATA = "datapackage.json", "measurements.csv"
FIELDS = ("station", "minute", "value")


def write(folder: Path, chance: Random) -> None:
    """Some hours of some stations."""
    with (folder / DATA).open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(FIELDS)
        for minute in range(chance.randrange(200, 1500)):
            table.writerow((chance.randrange(40), minute, round(chance.gauss(11, 4), 3)))
    data = (folder / DATA).read_bytes()
    resource = {
        "path": DATA, "bytes": len(data), "hash": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "schema": {"fields": [{"name": name} for name in FIELDS]},
    }  # fmt: skip
    (folder / DESCRIPTOR).write_text(json.dumps({"name": folder.name, "resources": [resource]}, indent=1))


def read(root: Path) -> dict[str, int]:
    """Every file is as the descriptor says; how many rows there are.  Whatever it raises says that it is not alive."""
    rows = 0
    for resource in json.loads((root / DESCRIPTOR).read_text())["resources"]:
        path = root / resource["path"]
        data = path.read_bytes()
        if len(data) != resource["bytes"] or f"sha256:{hashlib.sha256(data).hexdigest()}" != resource["hash"]:
            raise ValueError(f"{path.name} is not what {DESCRIPTOR} describes")
        header, *lines = csv.reader(data.decode().splitlines())
        if header != [field["name"] for field in resource["schema"]["fields"]]:
            raise ValueError(f"{path.name} has other columns than {DESCRIPTOR} says")
        rows += len(lines)
    return {"rows": rows}
