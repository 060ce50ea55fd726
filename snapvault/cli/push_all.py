"""``snapvault site push --all``"""

from typing import TYPE_CHECKING, Any

from snapvault.cli.common import gravest, status_code, status_of
from snapvault.cli.declared import declared
from snapvault.cli.replication import push_to
from snapvault.cli.settings import Settings
from snapvault.foundation.errors import Cancelled, InvalidInput, SnapvaultError
from snapvault.foundation.words import count
from snapvault.operations.sites import Sites

if TYPE_CHECKING:
    from snapvault.assurance.register import Register


def push_all(settings: Settings, no_attest: bool) -> int:
    """Push to every site that is owed a copy of something; the gravest exit code of all of them."""
    access = settings.access()  # the register needs a key
    with settings.open_with(access) as repository:
        register = declared(settings, repository)
        if not no_attest:
            repository.require_signing()
    sites, owed = Sites(settings.state(), repository.id, settings.home()), _owed(register)
    done = [_push(settings, sites, name, owing, None if no_attest else access) for name, owing in owed.items()]
    if idle := [name for name in sites.all() if name not in owed]:
        settings.out.note(f"no dataset is owed at {', '.join(idle)}")
    code, failed = gravest((status_code(register.status), *(c for c, _ in done))), sum(failed for _, failed in done)
    status = "failed" if failed else status_of(code)
    lines = [f"{count(len(done), 'site')} owed a copy" + (f", {failed} failed" if failed else "")]
    settings.out.summary({"sites": len(done), "failed": failed, "status": status}, lines)
    return code


def _owed(register: "Register") -> dict[str, int]:
    """How many datasets each site is owed."""
    found = dict[str, int]()
    for dataset in register.datasets.values():
        for site in dataset.sites:
            found[site] = found.get(site, 0) + 1
    return found


def _push(
    settings: Settings, sites: Sites, name: str, datasets: int, access: dict[str, Any] | None
) -> tuple[int, bool]:
    """One site's exit code, and whether it failed."""
    item: dict[str, Any] = {"site": name, "datasets": datasets, "result": None, "error": None}
    try:
        if name not in sites.all():
            raise InvalidInput(
                f"{count(datasets, 'dataset')} owed there, but this machine does not know where {name} is",
                hint=f"'snapvault site add {name} URL'",
            )
        item["result"], lines, code = push_to(settings, sites, name, access)
    except Cancelled:
        raise
    except SnapvaultError as e:
        item["error"] = e.to_dict()
        lines, code = [f"FAILED: {e}"], gravest((e.exit_code,))
    settings.out.item(item, "\n".join(f"{name}: {line}" for line in lines))
    return code, item["error"] is not None
