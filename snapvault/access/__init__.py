"""Reading inside snapshots: list, walk, open a file."""
