"""``snapvault key``"""

import contextlib
from dataclasses import asdict
from typing import Any

import click

import snapvault
from snapvault.cli.common import common_options, verb
from snapvault.cli.init import new_private_file, write_text
from snapvault.cli.settings import Settings
from snapvault.cli.text import printable, table

ROLES = ("writer", "reader", "maintainer", "site")


@click.group(no_args_is_help=True, short_help="List, add and remove keys; change the password; rotate.")
@common_options
def key() -> None:
    """Who may do what: list, add, remove, change (the password), rotate."""


@key.command("list")
@verb
def list_(settings: Settings) -> int:
    """List the holders of keys."""
    with settings.open() as repository:
        found = snapvault.list_keys(repository)
    if settings.out.as_json:
        for info in found:
            settings.out.item(asdict(info), "")
    rows = [(i.id[:8], printable(i.name), i.role, ", ".join(i.slots), _mark(i)) for i in found]
    settings.out.summary({"keys": len(found), "status": "ok"}, table(("ID", "Name", "Role", "Opened by", ""), rows))
    return 0


def _mark(info: snapvault.KeyInfo) -> str:
    return "removed" if info.removed else "in use now" if info.current else ""


@key.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may do.")
@click.option("--file", "file", metavar="F", help="Write a client key to the new file F instead of setting a password.")
@verb
def add(settings: Settings, name: str, role: str, file: str | None) -> int:
    """Give somebody keys of their own.

    \b
    writer      backs up; can open nothing, not even what it wrote
    reader      restores, lists and checks
    maintainer  the same, and forgets
    site        checks without opening anything

    \b
    snapvault key add laptop --role writer --file laptop.key
    """
    with settings.open() as repository:
        if file is not None:
            result = snapvault.add_key(repository, role, name, file=file)
            given = [f"Its client key is in {file}: move it to that machine and set SNAPVAULT_KEY_FILE there."]
        else:
            result = snapvault.add_key(repository, role, name, password=settings.new_password(f"the key {name}"))
            given = ["It opens the repository with the password you gave."]
    return _done(settings, result, [f"Added the {role} {name} ({result.id[:8]}).", *given])


@key.command()
@click.argument("who", metavar="NAME|ID")
@verb
def remove(settings: Settings, who: str) -> int:
    """Take somebody's keys away.

    What it stored stays.  Whatever it could read before, it may have kept.
    """
    with settings.open() as repository:
        result = snapvault.remove_key(repository, who)
    return _done(settings, result, [f"Removed the {result.role} {result.name} ({result.id[:8]})."])


@key.command(short_help="Change the password of the key in use.")
@verb
def change(settings: Settings) -> int:
    """Change the password of the key in use (with the recovery key: set the owner's).

    \b
    snapvault key change
    snapvault --key-file recovery.key key change
    """
    with settings.open() as repository:
        result = snapvault.change_password(repository, settings.new_password("the key in use"))
    after = "If the old password leaked, run 'snapvault key rotate' too."
    return _done(settings, result, [f"The {result.role} {result.name} has a new password.", after])


@key.command(short_help="Seal new data to a fresh read key.")
@click.option("--new-recovery-key", is_flag=True, help="Issue a new recovery key, too; keep the old one for old data.")
@click.option("--recovery-key-file", metavar="F", help="Write the new recovery key to the new file F.")
@verb
def rotate(settings: Settings, new_recovery_key: bool, recovery_key_file: str | None) -> int:
    """Seal new data to a fresh read key, given to all who may read now."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(new_private_file(recovery_key_file)) if recovery_key_file else None
        with settings.open() as repository:
            issue = new_recovery_key or recovery_key_file is not None
            result = snapvault.rotate(repository, new_recovery_key=issue)
        lines = ["New data is sealed to a new key from now on."]
        extra: dict[str, Any] = {}
        if file is not None:
            write_text(file, result.recovery_key + "\n")
            lines.append(f"The new recovery key is in {recovery_key_file}; keep the old one for the old data.")
            extra["recovery_key_file"] = recovery_key_file
        elif issue:
            lines += ["New recovery key, shown this once; keep the old one for the old data:", "", result.recovery_key]
            extra["recovery_key"] = result.recovery_key
        return _done(settings, result, lines, **extra)


def _done(settings: Settings, result: snapvault.KeyResult, lines: list[str], **extra: Any) -> int:
    content = {k: v for k, v in result.to_dict().items() if k not in ("recovery_key", "file") or (k == "file" and v)}
    settings.out.summary({**content, **extra}, lines)
    return 0
