"""What is backed up: made once from its recipe, kept in the work folder, and described in the report."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from peerbench import kernel, trees
from peerbench.content import digest
from peerbench.image import image
from peerbench.measure import files_of

RECIPE = 1  # changes with every change of a recipe, so that nothing old is measured
NAMES = ("small", "image", "media", "dump")


@dataclass(frozen=True)
class Corpus:
    """A tree and, if ``changes``, its second version; ``live`` is where the tools find either."""

    name: str
    recipe: str
    files: int
    bytes: int
    digest: str
    changes: bool
    home: str  # folder of first and second, or "" where somebody's own tree is read in place
    live: str

    def facts(self) -> dict[str, object]:
        """For the report."""
        return {"recipe": self.recipe, "files": self.files, "bytes": self.bytes, "digest": self.digest}

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """The first version is at ``live``; a call of what is given puts the second one there."""
        if not self.home:
            yield lambda: None
            return
        home, live = Path(self.home), Path(self.live)
        _put_back(home)
        os.rename(home / "first", live)

        def change() -> None:
            os.rename(live, home / "first")
            os.rename(home / "second", live)

        try:
            yield change
        finally:
            _put_back(home)


def _put_back(home: Path) -> None:
    """Both versions under their names again, also after a run that was killed."""
    for name in ("first", "second"):
        if (home / "tree").exists() and not (home / name).exists():
            os.rename(home / "tree", home / name)


def load(names: Sequence[str], work: Path, scale: float) -> list[Corpus]:
    """Some of NAMES, each made if it is not there yet."""
    found = []
    # In a process of its own: children of this one would show its peak memory as theirs.
    with ProcessPoolExecutor(1) as other:
        for name in names:
            home = work / "corpora" / f"{name}-{RECIPE}-{scale:g}"
            described = home / "corpus.json"
            if not described.exists():
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir(parents=True)
                print(f"making the corpus {name}", flush=True)
                described.write_text(json.dumps(asdict(other.submit(_make, name, home, scale).result()), indent=1))
            found.append(Corpus(**json.loads(described.read_text())))
    return found


def _make(name: str, home: Path, scale: float) -> Corpus:
    first, second = home / "first", home / "second"
    if name == "small" and scale == 1:
        recipe = kernel.kernel(first, second)
    else:
        recipe = {"small": trees.seeded_tree, "image": image, "media": trees.media, "dump": trees.dump}[name](
            first, second, scale
        )
    return _described(name, recipe, first, changes=second.exists(), home=str(home), live=str(home / "tree"))


def own(folder: Path) -> Corpus:
    """Somebody's own tree, read in place; there is no second version of it."""
    folder = folder.resolve(strict=True)
    return _described(folder.name, f"the tree {folder}", folder, changes=False, home="", live=str(folder))


def _described(name: str, recipe: str, root: Path, *, changes: bool, home: str, live: str) -> Corpus:
    files = files_of(root)
    size = sum(os.lstat(path).st_size for path in files)
    return Corpus(name, recipe, len(files), size, digest(root, files), changes, home, live)
