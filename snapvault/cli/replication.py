"""One replication, as ``snapvault site push`` and ``pull`` make it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import snapvault
from snapvault.cli.common import status_code
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, printable
from snapvault.foundation.errors import StoreDenied, StoreUnavailable
from snapvault.foundation.words import count
from snapvault.operations.results import DAMAGED

if TYPE_CHECKING:
    from snapvault.operations.sites import Sites


class Copied(NamedTuple):
    """What came of a replication: for a program, for people, and as an exit code."""

    content: dict[str, Any]
    lines: list[str]
    code: int


def tell(settings: Settings, copied: Copied) -> int:
    """The end of a command that made one."""
    settings.out.summary(copied.content, copied.lines)
    return copied.code


def push_to(settings: Settings, sites: "Sites", name: str, access: dict[str, Any] | None) -> Copied:
    """Bring a site that this machine knows what it lacks; ``access``: attest it, too."""
    url, place = settings.url(), sites.url(name)
    source, target = snapvault.Site(url, settings.options_for(url)), snapvault.Site(place, settings.options_for(place))
    copied = bring(settings, source, target, access, name, create=not sites.was_reached(name))
    sites.reached(name)
    return copied


def bring(
    settings: Settings, source: "snapvault.Site", target: "snapvault.Site", access: dict[str, Any] | None, name: str,
    *, create: bool,
) -> Copied:  # fmt: skip
    """Replicate; with ``access``, attest the target as ``name``."""
    with long_operation(settings.out, limits=settings.limits()) as control:
        result = snapvault.replicate(source, target, create=create, control=control)
        attestation = None
        if access is not None:
            attestation = _attest(settings, source, target, access, name, control)
    for problem in result.problems:
        if settings.out.as_json:
            settings.out.item(
                {"message": problem.message, "objects": problem.objects, "harmless": problem.harmless}, ""
            )
        else:
            settings.out.warning(problem.message)
    came = f"{count(result.objects, 'object')}, {human_size(result.bytes)} copied to {result.target}"
    lines = [
        f"{came}: {count(result.snapshots, 'snapshot')} more",
        *([f"{count(result.healed, 'damaged object')} there replaced"] if result.healed else []),
        *(attested_lines(attestation) if attestation else ["not attested: no key was used"]),
    ]
    attested = attestation.to_dict() if attestation else None
    status = DAMAGED if attestation and attestation.bad else result.status
    content = {**result.to_dict(), "problems": len(result.problems), "attestation": attested, "status": status}
    return Copied(content, lines, status_code(status))


def _attest(
    settings: Settings,
    source: "snapvault.Site",
    target: "snapvault.Site",
    access: dict[str, Any],
    name: str,
    control: Any,
) -> "snapvault.Attestation":
    """Signed there, and kept at both ends."""
    with snapvault.open(target.url, **{**access, "storage_options": target.storage_options}) as copy:
        attestation = snapvault.attest(copy, name, control=control)
    try:
        snapvault.exchange_attestations(source, target)
    except (StoreDenied, StoreUnavailable) as e:
        settings.out.warning(f"the attestation is at {target.url} only: {e.message}")
    return attestation


def attested_lines(attestation: "snapvault.Attestation") -> list[str]:
    """What was signed, for people."""
    complete = count(len(attestation.snapshots), "snapshot")
    lines = [f"{attestation.site} attested by {printable(attestation.by)}: {complete} complete"]
    if attestation.bad:
        some = f"{', '.join(attestation.names[:2])}{', ...' if attestation.bad > 2 else ''}"
        lines[0] += f"; {count(attestation.bad, 'object')} missing or damaged there: {some}"
        lines.append(f"What to do: 'snapvault check --repair-from {attestation.site}', here, mends each from the other")
    return lines
