"""Writes vectors.json anew, for a change of the chunker on purpose: old repositories then deduplicate no more.

python tests/chunking/make_vectors.py
"""

import json
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapvault.chunking import Chunker, Chunking

KIB = 1024
SMALL, ODD, DEFAULT = (64, 256, 1024), (100, 1024, 3333), (16 * KIB, 64 * KIB, 256 * KIB)
KEYS = {"zeros": bytes(32), "counting": bytes(range(32)), "hashed": blake3(b"vector key").digest()}
# Inputs whose first chunk has the minimum length, and only because of the oldest byte of the window.
FIRST = {"zeros": "first 1093", "counting": "first 715", "hashed": "first 3954"}


def recipe_input(recipe: dict[str, Any]) -> bytes:
    """The input that a recipe describes; the recipes are explained in docs/format/chunking.md."""
    size = recipe["size"]
    if recipe["kind"] == "xof":
        return blake3(recipe["seed"].encode()).digest(length=size)
    if recipe["kind"] == "text":
        lines = "".join(f"line {n}: {n * n} squared, {n % 7} left\n" for n in range(size // 16 + 1))
        return lines.encode()[:size]
    if recipe["kind"] == "repeat":
        unit = bytes.fromhex(recipe["unit"])
        return (unit * (size // len(unit) + 1))[:size]
    if recipe["kind"] == "runs":  # run number n is n % 199 + 1 times the byte n * 7 % 256
        runs = b"".join(bytes([n * 7 % 256]) * (n % 199 + 1) for n in range(size // 50 + 400))
        return runs[:size]
    raise ValueError(f"no such recipe: {recipe['kind']}")


def cases() -> list[dict[str, Any]]:
    small = [
        {"kind": "xof", "seed": "a", "size": 20_000},
        {"kind": "text", "size": 20_000},
        {"kind": "repeat", "unit": "00", "size": 5_000},
        {"kind": "repeat", "unit": "0102030405060708090a0b0c0d", "size": 10_000},
        {"kind": "runs", "size": 20_000},
    ]
    edges = [
        {"kind": "xof", "seed": "edge", "size": size} for size in (0, 1, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025)
    ]
    large = [{"kind": "xof", "seed": "large", "size": 1_500_000}, {"kind": "text", "size": 700_000}]
    plan = [
        (SMALL, small + edges),
        (ODD, small),
        (DEFAULT, large),
        (DEFAULT, [{"kind": "repeat", "unit": "00", "size": 600_000}]),
    ]
    rows = [
        {"key": key, "sizes": sizes, "input": recipe} for sizes, recipes in plan for recipe in recipes for key in KEYS
    ]
    return rows + [
        {"key": key, "sizes": SMALL, "input": {"kind": "xof", "seed": seed, "size": 200}} for key, seed in FIRST.items()
    ]


def vector(case: dict[str, Any]) -> dict[str, Any]:
    key, data = KEYS[case["key"]], recipe_input(case["input"])
    chunker = Chunker(Chunking(*case["sizes"]), key)
    return {
        **case,
        "key": key.hex(),
        "ends": chunker.cuts(data, final=True),
        "certain": len(chunker.cuts(data, final=False)),
    }


if __name__ == "__main__":
    rows = ",\n".join(json.dumps(vector(case)) for case in cases())
    Path(__file__).with_name("vectors.json").write_text(f"[\n{rows}\n]\n")
