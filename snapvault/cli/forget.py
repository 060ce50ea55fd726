"""``snapvault forget``"""

import click

import snapvault
from snapvault.cli.common import verb
from snapvault.cli.settings import Settings
from snapvault.foundation.words import count


@click.command()
@click.argument("snapshots", metavar="[SNAP]...", nargs=-1)
@click.option("-n", "--dry-run", is_flag=True, help="Only show which snapshots the names mean.")
@verb
def forget(settings: Settings, snapshots: tuple[str, ...], dry_run: bool) -> int:
    """Forget snapshots: they are no longer listed.  No space is freed by that.

    \b
    snapvault forget 3f2a91c0 home@2026-10-01
    """
    with settings.open() as repository:
        result = snapvault.forget_snapshots(repository, snapshots, dry_run=dry_run)
    for snapshot in result.forgotten:
        settings.out.item({"snapshot": snapshot}, snapshot[:8])
    end = "would be forgotten; no space is freed by that" if dry_run else "forgotten; no space was freed"
    content = {"forgotten": len(result.forgotten), "dry_run": dry_run, "status": result.status}
    settings.out.summary(content, [f"{count(len(result.forgotten), 'snapshot')} {end}"])
    return 0
