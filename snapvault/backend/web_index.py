"""The page on which a web server lists a folder: only those that are known to list everything, and only if whole.

A login page, a page that somebody designed, or the first of several would make a listing short without a word.
Apache's index is not among them: it leaves out what a rule forbids, and by default what looks like a backup.
"""

import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from snapvault.backend.walk import Entry

# nginx and lighttpd; Python's http.server; rclone.  Each with the path of the folder.
_TITLE = re.compile(r"(?:(?:Index of|Directory listing for) (/|/.*/)|(/.*))")
_HARMLESS = frozenset({"sort", "order", "download"})  # queries of links that do not lead to more of the listing


class NoIndex(OSError):
    """The page is no listing that can be trusted."""


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.title, self.links, self.whole = "", list[str](), False
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        self.links += [value or "" for name, value in attrs if tag == "a" and name == "href"]

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        self.whole = self.whole or tag == "html"

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def read_index(url: str, body: bytes, folder: str) -> list[Entry]:
    """Names below ``folder`` (which ends in ``/``, or is empty), sizes unknown; NoIndex.  ``url``: of the page."""
    page = _Page()
    page.feed(body.decode(errors="replace"))
    page.close()
    base = unquote(urlsplit(url).path)
    title = _TITLE.fullmatch(page.title.strip())
    shown = (title[1] or title[2]) if title else ""
    if not page.whole or not shown or _last(shown) != _last(base):
        raise NoIndex("the page there is no index that is known to be complete")
    links = (_child(url, link) for link in page.links)
    return [(folder + name, 0) for name in links if name]


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _child(url: str, link: str) -> str:
    """The name to which a link leads if it is directly in the folder, with the slash of a folder; else ''."""
    here, there = urlsplit(url), urlsplit(urljoin(url, link))
    base, path = unquote(here.path), unquote(there.path)
    if (there.scheme, there.netloc) != (here.scheme, here.netloc) or not path.startswith(base):
        return ""  # decoration, or a folder above
    if there.query:
        if parse_qs(there.query).keys() <= _HARMLESS:
            return ""
        raise NoIndex(f"the index there may go on elsewhere: it has a link to {link!r}")
    name = path.removeprefix(base)
    if "/" in name.removesuffix("/"):
        raise NoIndex(f"the index there has a link to {link!r}, which is not in this folder")
    return name
