"""What every command needs to reach a repository: from options, before or after the verb, and from the environment."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import snapvault
from snapvault.cli.output import Output
from snapvault.cli.secrets import Password, ask, password_source
from snapvault.format.names import CONFIG
from snapvault.foundation.errors import Damaged, InvalidInput, RepositoryNotFound

PASSWORD, NEW_PASSWORD = "SNAPVAULT_PASSWORD", "SNAPVAULT_NEW_PASSWORD"


@dataclass
class Settings:
    """Values of the common options; None: not given, so the environment or the default counts."""

    repository: str | None = None
    key_file: str | None = None
    password_file: str | None = None
    password_command: str | None = None
    storage_options: str | None = None
    cache_dir: str | None = None
    no_cache: bool = False
    state_dir: str | None = None
    debug: bool = False
    upload: int | None = None
    download: int | None = None
    connections: int | None = None
    out: Output = field(default_factory=Output)

    def url(self) -> str:
        """Where the repository is; InvalidInput if nobody said."""
        url = self.repository or os.environ.get("SNAPVAULT_REPOSITORY")
        if not url:
            raise InvalidInput("no repository is named", hint="give -r REPOSITORY or set SNAPVAULT_REPOSITORY")
        return url

    def home(self) -> str:
        """The same, as it is remembered: it does not depend on where the command was started."""
        return whole_url(self.url())

    def options_for(self, url: str) -> dict[str, Any] | None:
        """fsspec's options for this URL; also what is said of a folder, which takes none, for that to be told."""
        path = self.storage_options or os.environ.get("SNAPVAULT_STORAGE_OPTIONS")
        if not path:
            return None
        from snapvault.cli.storage import load_options, options_for

        return options_for(load_options(path), url if "://" in url else f"file://{Path(url).absolute()}")

    def state(self) -> Path:
        """The folder for what this machine alone knows."""
        return self._folder("state", self.state_dir)

    def repository_id(self) -> str:
        """That of the repository, which needs no key; RepositoryNotFound."""
        from snapvault.operations.sites import repository_id

        with self.naming_copies():
            return repository_id(self.url(), self.options_for(self.url()))

    def has_key(self) -> bool:
        """Whether a key file or a password is given, so that nobody would be asked."""
        return self.keys() is not None or self._given_password() is not None

    def _given_password(self) -> Password | None:
        return password_source(PASSWORD, file=self.password_file, command=self.password_command)

    def keys(self) -> "snapvault.KeyFile | None":
        """The key file; with one, a password is neither looked for nor asked."""
        path = self.key_file or os.environ.get("SNAPVAULT_KEY_FILE")
        return snapvault.KeyFile(path) if path else None

    def password(self, *, new: bool = False) -> Password:
        """The repository's password, asked for at the terminal if it is given nowhere."""
        return self._given_password() or ask(PASSWORD, f"the {'new ' if new else ''}repository {self.url()}", twice=new)

    def new_password(self, whose: str) -> Password:
        """The password to set."""
        return password_source(NEW_PASSWORD) or ask(NEW_PASSWORD, whose, twice=True, password="new password")

    def access(self, *, new: bool = False) -> dict[str, Any]:
        """Arguments of ``snapvault.open`` and ``snapvault.init`` beside the URL."""
        keys = self.keys()
        return {
            "keys": keys,
            "password": None if keys is not None else self.password(new=new),
            "storage_options": self.options_for(self.url()),
            "cache": None if self.no_cache else self._folder("cache", self.cache_dir),
            "state": self.state(),
        }

    def open(self, *used: str, anywhere: bool = False) -> "snapvault.Repository":
        """Open the repository; the errors of ``snapvault.open``.

        ``used``: what the verb takes from the package.  It is imported while the key is derived from the password, for
        which Python does nothing.  ``anywhere``: what is read may come from any site that is known.
        """
        access = self.access()
        if anywhere:
            access["sites"] = [snapvault.Site(url, self.options_for(url)) for url in self.copies().values()]
        if access["password"] is not None:
            threading.Thread(target=_import, args=(used,), name="snapvault-import", daemon=True).start()
        return self.open_with(access)

    def open_with(self, access: dict[str, Any]) -> "snapvault.Repository":
        """The same, with what ``access`` gave."""
        with self.naming_copies():
            return snapvault.open(self.url(), **access)

    def limits(self) -> "snapvault.Limits":
        """What an operation may use of the line to a store."""
        return snapvault.Limits(upload=self.upload, download=self.download, connections=self.connections)

    @contextmanager
    def naming_copies(self) -> Iterator[None]:
        """Where a repository was, nobody shall make a new one while copies of the old one are known: say where."""
        try:
            yield
        except (RepositoryNotFound, Damaged) as e:
            lost = isinstance(e, RepositoryNotFound)
            if (lost or CONFIG in e.affected) and (copies := self.copies()):
                known = ", ".join(f"{name} at {url}" for name, url in copies.items())
                what = "check the URL" if lost else e.hint
                e.hint = f"{what}; copies that are known: {known}; 'snapvault -r URL' reads there"
            raise

    def copies(self) -> dict[str, str]:
        """URLs by name of the sites that this machine knows of the repository that is, or was, at this place."""
        from snapvault.operations.sites import Sites

        sites = Sites.of_home(self.state(), self.home())
        return sites.all() if sites else {}

    def _folder(self, kind: str, given: str | None) -> Path:
        """A private folder; one that cannot be made is no error: what it holds can be done without."""
        named = given or os.environ.get(f"SNAPVAULT_{kind.upper()}_DIR")
        if named:
            path = Path(named)
        else:
            import platformdirs

            path = (
                platformdirs.user_cache_path("snapvault")
                if kind == "cache"
                else platformdirs.user_state_path("snapvault")
            )
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        return path


def whole_url(url: str) -> str:
    """A path from the root, or a URL, each written in one way; InvalidInput for none."""
    if not url:
        raise InvalidInput("the place is empty")
    if url.startswith("file://"):
        from snapvault.backend.factory import file_path

        url = file_path(url)
    return url.rstrip("/") if "://" in url else str(Path(url).absolute())


def _import(names: tuple[str, ...]) -> None:
    with suppress(Exception):  # raised again where it is needed
        for name in names:
            getattr(snapvault, name)
