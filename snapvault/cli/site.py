"""``snapvault site``"""

from typing import TYPE_CHECKING

import click

import snapvault
from snapvault.cli.common import common_options, verb
from snapvault.cli.replication import bring, push_to, tell
from snapvault.cli.settings import Settings, whole_url
from snapvault.cli.text import local_time, printable, table
from snapvault.cli.transfer import transfer_options
from snapvault.foundation.errors import Damaged, InvalidInput, RepositoryNotFound

if TYPE_CHECKING:
    from snapvault.operations.sites import Sites

HEADER = ("Site", "Where", "Attested", "By", "Level", "Snapshots", "Read through", "")


@click.group(no_args_is_help=True, short_help="Copies at other places: add, push, pull, list, promote.")
@common_options
def site() -> None:
    """Copies of the repository at other places."""


@site.command()
@click.argument("name")
@click.argument("url")
@verb
def add(settings: Settings, name: str, url: str) -> int:
    """Remember, on this machine, where a copy is or shall be.

    \b
    snapvault site add second /mnt/other/repo
    snapvault site add cloud s3://backups/repo          (keys and endpoint: see --storage-options)
    """
    from snapvault.operations.attest import checked_site

    name = checked_site(name)
    url = whole_url(url)
    known_sites(settings).put(name, url)
    settings.out.summary({"site": name, "url": url, "status": "ok"}, [f"{name} is {url}; 'snapvault site push {name}'"])
    return 0


@site.command()
@click.argument("name")
@verb
def remove(settings: Settings, name: str) -> int:
    """Forget where a copy is; the copy itself stays as it is."""
    sites = known_sites(settings)
    url = sites.url(name)
    sites.put(name, None)
    settings.out.summary({"site": name, "url": url, "status": "ok"}, [f"{name} is forgotten; what is at {url} stays."])
    return 0


@site.command("list")
@verb
def list_(settings: Settings) -> int:
    """List the sites, what was attested of each, and since when something is owed.

    A snapshot that no attestation of a site covers is unanswered there: nobody knows whether the site has it.
    """
    from snapvault.operations.sites import site_states

    known = known_sites(settings)
    sites = known.all()
    with settings.open("attestations") as repository:
        states = site_states(repository, sites)
    if settings.out.as_json:
        for s in states:
            settings.out.item({**s.to_dict(), "url": sites[s.name], "here": known.is_home(s.name)}, "")
    rows = []
    for s in states:
        last = (local_time(s.newest.time), printable(s.newest.by), s.newest.level) if s.newest else ("never", "", "")
        whole = local_time(s.hashed.time) if s.hashed else "never"
        covered = f"{s.snapshots} of {s.snapshots + s.unanswered}"
        since = f"unanswered since {local_time(s.unanswered_since)}" if s.unanswered_since else ""
        since = "is this place" if known.is_home(s.name) else since
        rows.append((s.name, printable(sites[s.name]), *last, covered, whole, since))
    settings.out.summary(
        {"sites": len(states), "status": "ok"}, table(HEADER, rows) if rows else ["There are no sites."]
    )
    return 0


@site.command()
@click.argument("name", required=False)
@click.option("--all", "everywhere", is_flag=True, help="Push to every site that a dataset of the register is owed at.")
@click.option("--no-attest", is_flag=True, help="Sign nothing about what the site holds; then no key is needed.")
@transfer_options
@verb
def push(settings: Settings, name: str | None, everywhere: bool, no_attest: bool) -> int:
    """Bring a site everything that it lacks, and sign what it holds then.

    Nothing is ever deleted there.  Run it again at any time: it copies what is new, and goes on where it was cut off.
    Exit code 20: something at this end is damaged, and did not come.

    \b
    snapvault site push second
    snapvault site push --all
    """
    if (name is None) != everywhere:
        raise InvalidInput("name one site, or give --all")
    if name is None:
        from snapvault.cli.push_all import push_all

        return push_all(settings, no_attest)
    sites = known_sites(settings)
    sites.url(name)  # before a password is asked for
    access = None if no_attest else settings.access()
    if access is not None:  # before anything is copied: a key that is wrong, or cannot sign
        with snapvault.open(settings.url(), **access) as repository:
            repository.require_signing()
    return tell(settings, push_to(settings, sites, name, access))


@site.command()
@click.argument("source", metavar="NAME|URL")
@click.option("--as", "name", metavar="NAME", default="", help="What this place is called in what is signed.")
@transfer_options
@verb
def pull(settings: Settings, source: str, name: str) -> int:
    """Bring this place (-r) everything that it lacks of the repository at NAME or URL.

    For a site that fetches with its own credentials, so that whoever takes over the source cannot reach the copy.  It
    needs no key; with one, of any role, what is here then is signed.

    \b
    snapvault -r /srv/copy --key-file site.key site pull sftp://backup@office/srv/repo --as second
    """
    from snapvault.operations.attest import checked_site, require_witness

    url = settings.url()
    try:
        begin = place_of(settings, source)
    except snapvault.RepositoryNotFound:
        raise InvalidInput(
            f"nothing is at {url} yet, so it is not known which repository's site {source} is", hint="give its URL"
        ) from None
    access = settings.access() if settings.has_key() else None
    if access is not None and not name:
        raise InvalidInput("what is signed needs a name for this place", hint="give --as NAME")
    origin, here = (snapvault.Site(place, settings.options_for(place)) for place in (begin, url))
    if access is not None:  # before anything is copied
        with snapvault.open(origin.url, **{**access, "storage_options": origin.storage_options}) as repository:
            require_witness(repository, name)
    return tell(settings, bring(settings, origin, here, access, checked_site(name) if name else "", create=True))


@site.command()
@verb
def promote(settings: Settings) -> int:
    """Make this place (-r), a copy, the source: for ever, once the old source is lost or retired.

    \b
    snapvault -r /mnt/other/repo site promote
    """
    with settings.open("promote") as repository:
        snapvault.promote(repository)
    lines = [
        f"{settings.url()} is the source now; backups and prunes are done here.",
        "Replicate it to a new place soon.",
    ]
    settings.out.summary({"url": settings.url(), "status": "ok"}, lines)
    return 0


def known_url(settings: Settings, name: str) -> str | None:
    """Where this machine knows a site to be."""
    return known_sites(settings).all().get(name)


def place_of(settings: Settings, name: str) -> str:
    """The URL of a site; a URL, or a path with a slash, stands for itself."""
    if "://" in name or "/" in name:
        return name
    try:
        return known_sites(settings).url(name)
    except (Damaged, RepositoryNotFound):  # whose repository it is, or was, is what the site is to tell
        if url := settings.copies().get(name):
            return url
        raise


def known_sites(settings: Settings) -> "Sites":
    """The sites that this machine knows."""
    from snapvault.operations.sites import Sites

    return Sites(settings.state(), settings.repository_id(), settings.home())
