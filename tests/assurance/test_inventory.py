"""Inventories in CSV: columns by their names, other encodings, and rows that cannot be read."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from snapvault import Retention
from snapvault.assurance.dataset import DrillRule, Probe
from snapvault.assurance.declaration import Refused, declare
from snapvault.assurance.inventory import Inventory, read_inventory
from snapvault.foundation.errors import InvalidInput


def read(tmp_path: Path, data: bytes | str, before: Any = None, **options: Any) -> Inventory:
    path = tmp_path / "inventory.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_inventory(path, None if before is None else declare(before, "before"), **options)


def faults(tmp_path: Path, data: bytes | str, before: Any = None, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        read(tmp_path, data, before, **options)
    return [(f.path, f.message) for f in caught.value.faults]


ROWS = """Dataset{d}Owner{d}Source{d}Host{d}Tier{d}RPO{d}rto{d}Sites owed{d}Drill frequency{d}Drill-level{d}Probe{d}\
Retention{d}Cost centre
orders{d}Ada{d}/srv/orders | s3://b/o{d}web-1{d}1{d}24h{d}2h{d}second third{d}30d{d}sample{d}zip path=o.zip \
members=7{d}daily=7 weekly=5{d}4711

web{d}"Bob
 and Co"{d}{d}{d}{d}{d}{d}{d}2w{d}{d}{d}{d}
"""


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_by_their_names(tmp_path: Path, delimiter: str, encoding: str) -> None:
    data = ROWS.format(d=delimiter).replace("\n", "\r\n").encode(encoding)
    found = read(tmp_path, data, encoding="utf-16" if encoding == "utf-16" else "UTF8")
    assert found.unused == ("Cost centre",)
    orders, web = found.declaration.datasets.values()
    assert (orders.name, orders.owner, orders.host, orders.tier) == ("orders", "Ada", "web-1", "1")
    assert orders.sources == ("/srv/orders", "s3://b/o") and orders.sites == ("second", "third")
    assert (orders.rpo, orders.rto) == (timedelta(hours=24), timedelta(hours=2))
    assert orders.drill == DrillRule(timedelta(days=30), "sample") and orders.retention == Retention(daily=7, weekly=5)
    assert orders.probe == Probe("zip", {"path": "o.zip", "members": 7})
    assert web.owner == "Bob\r\n and Co" and web.sources == () and web.drill == DrillRule(timedelta(days=14), "full")


def test_other_names_are_mapped(tmp_path: Path) -> None:
    data = "System,Name,Path=where\norders,the orders,/srv/orders\n"
    found = read(tmp_path, data, columns={"System": "name", "Path=where": "source"})
    assert list(found.declaration.datasets) == ["orders"] and found.unused == ("Name",)
    assert found.declaration.datasets["orders"].sources == ("/srv/orders",)
    for columns, message in (
        ({"Sytem": "name"}, "there is no column 'Sytem'.*columns: System, Name, Path=where"),
        ({"System": "nam"}, "'nam' is no field.*fields: name, source"),
        ({"System": "owner", "Name": "owner"}, "two columns of .* are the owner: 'System' and 'Name'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            read(tmp_path, data, columns=columns)


def test_a_column_says_all_of_its_field_and_nothing_of_others(tmp_path: Path) -> None:
    before = {
        "schema": 1, "defaults": {"rpo": "24h"}, "groups": {"office": {"owner": "Ada"}},
        "datasets": {
            "orders": {
                "owner": "Bob", "source": "/old", "drill": {"every": "1d", "level": "full"}, "probe": {"kind": "tar"},
            },
            "gone": {},
        },
    }  # fmt: skip
    found = read(tmp_path, "name,owner,source,drill,group\norders,,/new,2d,office\nweb,,,,\n", before).declaration
    assert list(found.datasets) == ["orders", "web"]  # whether gone may go is for the import to say
    orders = found.datasets["orders"]
    assert (orders.owner, orders.sources, orders.rpo) == ("Ada", ("/new",), timedelta(hours=24))
    assert orders.drill == DrillRule(timedelta(days=2), "full") and orders.probe == Probe("tar")
    assert found.content["groups"] == before["groups"]
    assert read(tmp_path, "name,drill,level\norders,,\n", before).declaration.datasets["orders"].drill is None


def test_rows_that_cannot_be_read_are_all_listed(tmp_path: Path) -> None:
    data = (
        "name,rpo,source,retention,probe\n"
        "a,24,/a,,\n"
        ",4h,/b,,\n"
        "c,4h\n"
        "A,4h,/a,,\n"
        "a,4h,/a,,\n"
        'q,4h,"/q\n/r",,\n'
        "d e,4h,/a,seven,\n"
        "f,4h,relative,,\n"
        "h,4h,/h,weekly=x,\n"
        "g,4h,/g,,http port=99999999999\n"
        '"x\n'
    )
    found = faults(tmp_path, data)
    assert [(path, message.split(":")[0]) for path, message in found] == [
        ("row 2, a.rpo", "'24' is no span of time"),
        ("row 3", "it names no dataset"),
        ("row 4", "it has 2 cells, the first row has 5"),
        ("row 5, A", "only its case tells it from a (row 2, a)"),
        ("row 6", "a stands in row 2 already"),
        ("row 9", "d e"),
        ("row 10, f.source", "'relative' is neither a URL nor an absolute path"),
        ("row 11, h.retention.weekly", "must be a whole number, not text"),
        ("row 12, g.probe", "the options of a probe of the kind 'http' are wrong"),
        ("row 13", "cannot be read"),
    ]


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        ("name,owner\na,J\u00fcrgen\n".encode("cp1252"), "utf-8", r"not in utf-8 \(line 2\); give --encoding with"),
        ("name\na\n".encode("utf-16"), "utf-8", r"not in utf-8 \(line 1\); give --encoding utf-16"),
        ("name\na\n".encode("utf-16-le"), "utf-8", "zero bytes; give --encoding utf-16-le"),
        (b"name\na\n", "klingon", "'klingon' is no encoding"),
        (b"name\na\n", "hex", "'hex' is no encoding"),
        (b"owner\na\n", "utf-8", "no column of .* is the name of the dataset; there are: owner; say which: --map"),
        (b"", "utf-8", "no column of .* is the name.*none"),
        (b"name,owner\n\n,\n", "utf-8", "it has no rows"),
        (b'"name\n', "utf-8", "the first row of .* cannot be read"),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path: Path, data: bytes, encoding: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path, data, encoding=encoding)


def test_the_encoding_that_is_given_counts(tmp_path: Path) -> None:
    data = "name;owner\na;J\u00fcrgen\n".encode("cp1252")
    assert read(tmp_path, data, encoding="cp1252").declaration.datasets["a"].owner == "J\u00fcrgen"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_inventory(tmp_path / "none.csv", None)
