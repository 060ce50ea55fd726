"""What the verbs with ``--all`` go by: the register, with its own troubles told."""

from typing import TYPE_CHECKING

import snapvault
from snapvault.cli.settings import Settings
from snapvault.foundation.errors import InvalidInput

if TYPE_CHECKING:
    from snapvault.assurance.register import Register


def declared(settings: Settings, repository: "snapvault.Repository") -> "Register":
    """The register; what is wrong with it is told, and is in its ``status``.  InvalidInput if nothing is declared."""
    found = declared_if_any(settings, repository)
    if found is None:
        raise InvalidInput("nothing is declared", hint="'snapvault register import snapvault.toml'")
    return found


def declared_if_any(settings: Settings, repository: "snapvault.Repository") -> "Register | None":
    """The same, or None."""
    from snapvault.assurance.register import read_register

    found = read_register(repository)
    if found is not None:
        for problem in found.damage:
            settings.out.error(problem)
        for conflict in found.conflicts:
            settings.out.warning(f"{conflict}; what either declares counts, until 'register import' says what does")
    return found
