"""Healing (``check --repair-from``): what is damaged or missing at one place comes from another that has it whole.

No key is needed: every object is verified by its name, or by the digest that it ends with and by who signed it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from snapvault.backend.checked import CheckedBackend
from snapvault.backend.control import controlled
from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.config import ConfigRecord
from snapvault.format.keyset import KeysetRecord
from snapvault.foundation.errors import Damaged, InvalidInput, RepositoryNotFound, SnapvaultError
from snapvault.foundation.events import Control, Reporter
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.genuine import SIGNED, Genuine
from snapvault.operations.missing import Missing
from snapvault.operations.results import DAMAGED, OK, Finding, Result
from snapvault.operations.scrub import Scrub
from snapvault.repository.keyring import public_ring
from snapvault.repository.keysets import newest_keyset, read_config
from snapvault.repository.site import Site
from snapvault.repository.store import fetch


@dataclass(frozen=True, slots=True)
class HealResult(Result):
    """What was mended at each place, and what a scrub still finds there."""

    here: str
    there: str
    mended_here: tuple[str, ...]  # names of objects
    mended_there: tuple[str, ...]
    remaining_here: tuple[Finding, ...]
    remaining_there: tuple[Finding, ...]

    @property
    def status(self) -> str:
        return DAMAGED if self.remaining_here or self.remaining_there else OK


def heal(here: Site, there: Site, *, control: Control | None = None) -> HealResult:
    """Read both places in full, and mend each from the other; nothing that is whole is replaced, nothing is deleted.

    InvalidInput if they hold different repositories; RepositoryNotFound; Damaged if the config is damaged at both;
    all errors of both stores.
    """
    first, second = _opened(here, control), _opened(there, control)
    try:
        return _Healing(first, second, Reporter("heal", control)).run()
    finally:
        first.close()
        second.close()


def _opened(site: Site, control: Control | None) -> Backend:
    return controlled(CheckedBackend(site.open()), control)


class _Healing:
    def __init__(self, here: Backend, there: Backend, reporter: Reporter) -> None:
        self._here, self._there, self._reporter = here, there, reporter
        config, digest = _config(here, there)
        found = list[KeysetRecord]()
        for place in (here, there):
            with suppress(Damaged, RepositoryNotFound):
                found.append(newest_keyset(place, config, digest)[0])
        keyset = max(found, key=lambda k: k.number) if found else newest_keyset(here, config, digest)[0]
        self._rescue, self._ring = dict(keyset.rescue), public_ring(config, digest, keyset)

    def run(self) -> HealResult:
        """Both ways."""
        here, remaining_here = self._mend_all(self._there, self._here)
        there, remaining_there = self._mend_all(self._here, self._there)
        return HealResult(self._here.url, self._there.url, here, there, remaining_here, remaining_there)

    def _mend_all(self, begin: Backend, end: Backend) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
        """What was mended at ``end``, and what a scrub still finds there.

        Again as long as something is: behind a damaged keyset or index others are found only once it is whole.
        """
        mended = self._mend_config(begin, end)
        while True:
            scrub = Scrub(end, self._reporter)
            problems = scrub.run().problems
            problems = (*problems, *self._forged(end, scrub.sizes.keys() - set(_named(problems))))
            named = set(_named(problems))
            missing = Missing(self._ring, begin, end, self._reporter).find()
            problems = (*problems, *(f for f in missing if named.isdisjoint(f.objects)))
            more = [name for name in self._mend(problems, begin, end) if name not in mended]
            mended += more
            if not more:
                return tuple(mended), problems

    def _mend_config(self, begin: Backend, end: Backend) -> list[str]:
        try:
            read_config(end)
        except (Damaged, RepositoryNotFound):
            return self._mend([Finding("", (names.CONFIG,))], begin, end)
        return []

    def _forged(self, place: Backend, whole: Iterable[str]) -> Iterator[Finding]:
        """Those of some objects with a right digest that nobody signed who may."""
        genuine = Genuine(self._ring, place)
        for name in sorted(n for n in whole if n.startswith(SIGNED)):
            self._reporter.check()
            try:
                genuine.check(name, fetch(place, name))
            except NotFound:
                continue
            except Damaged as e:
                yield Finding(f"{name}: {e.message}", (name,))

    def _mend(self, problems: Iterable[Finding], begin: Backend, end: Backend) -> list[str]:
        """The objects that were named and that ``begin`` has whole."""
        copier, mended = ObjectCopier(begin, end, self._rescue, Genuine(self._ring, begin)), []
        for name in _named(problems):
            self._reporter.check()
            try:
                outcome = copier.copy(begin.head(name))
            except NotFound:
                continue
            if outcome in (Outcome.COPIED, Outcome.HEALED):
                mended.append(name)
        return mended


def _config(here: Backend, there: Backend) -> tuple[ConfigRecord, bytes]:
    """That of both places, from one where it is whole; the errors of ``heal``."""
    shown, lacking = list[tuple[ConfigRecord, bytes]](), list[tuple[Backend, SnapvaultError]]()
    for place in (here, there):
        try:
            shown.append(read_config(place))
        except (Damaged, RepositoryNotFound) as e:
            lacking.append((place, e))
    if not shown:
        raise lacking[0][1]
    if any(digest != shown[0][1] for _, digest in shown):
        raise InvalidInput(f"{there.url} holds another repository than {here.url}")
    for place, error in lacking:
        if not _belongs(place, there if place is here else here, *shown[0]):
            raise error
    return shown[0]


def _belongs(place: Backend, other: Backend, config: ConfigRecord, digest: bytes) -> bool:
    """Whether anything at a place was signed for the repository with this config, whose keys ``other`` knows, too."""
    with suppress(Damaged, RepositoryNotFound):
        newest_keyset(place, config, digest)
        return True
    genuine = Genuine(public_ring(config, digest, newest_keyset(other, config, digest)[0]), place)
    for info in chain(place.list(names.SESSIONS), place.list(names.SNAPSHOTS)):
        with suppress(Damaged, NotFound):
            genuine.check(info.name, fetch(place, info.name))
            return True
    return False


def _named(findings: Iterable[Finding]) -> list[str]:
    """In the order of a writer; what belongs to one place alone has no copy."""
    found = {name for f in findings for name in f.objects if not name.startswith(names.LOCAL)}
    return sorted(found, key=lambda name: (name.startswith(names.SNAPSHOTS), not name.startswith(names.PACKS), name))
