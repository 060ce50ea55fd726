"""Which pages are taken for the listing of a folder, and which are not."""

import pytest

from snapvault.backend.web_index import NoIndex, read_index

URL = "http://127.0.0.1:8080/my%20copy/repo/"
NGINX = """<html>
<head><title>Index of /my copy/repo/</title></head>
<body>
<h1>Index of /my copy/repo/</h1><hr><pre><a href="../">../</a>
<a href="packs/">packs/</a>                                             27-Nov-2026 02:38                   -
<a href="config">config</a>                                             27-Nov-2026 02:38                  93
</pre><hr></body>
</html>
"""
LIGHTTPD = """<!DOCTYPE html>
<html>
<head>
<title>Index of /my%20copy/repo/</title>
<style type="text/css">a:active { color: blue; }</style>
</head>
<body>
<h2>Index of /my%20copy/repo/</h2>
<table summary="Directory Listing" cellpadding="0" cellspacing="0">
<tbody>
<tr class="d"><td class="n"><a href="../">..</a>/</td><td class="m">&nbsp;</td><td class="t">Directory</td></tr>
<tr class="d"><td class="n"><a href="packs/">packs</a>/</td><td class="m">2026-Nov-27</td></tr>
<tr><td class="n"><a href="config">config</a></td><td class="m">2026-Nov-27</td><td class="s">0.1K</td></tr>
</tbody>
</table>
<script type="text/javascript">link.setAttribute("href", "#"); if (a < b) { sort(); }</script>
</body>
</html>
"""
PYTHON = """<!DOCTYPE HTML>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Directory listing for /my copy/repo/</title>
</head>
<body>
<h1>Directory listing for /my copy/repo/</h1>
<hr>
<ul>
<li><a href="config">config</a></li>
<li><a href="packs/">packs/</a></li>
</ul>
<hr>
</body>
</html>
"""
RCLONE = """<!DOCTYPE html>
<html>
<head><title>/my copy/repo</title></head>
<body onload='filter();toggle("order");changeSize()'>
<h1><a href="../../">/</a><a href="../">my copy</a>/<a href="">repo</a>/
<a class="zip-root" href="?download=zip" title="Download root as .zip"><svg></svg></a></h1>
<table><tr><th><a href="?sort=name&order=asc" class="order">Name</a></th></tr>
<tr><td><a href=".."><span class="goup">Go up</span></a></td></tr>
<tr class="file"><td><span class="name"><a href="packs/">packs/</a></span>
<a class="zip" href="packs/?download=zip" title="Download folder as .zip"><svg></svg></a></td></tr>
<tr class="file"><td><span class="name"><a href="config">config</a></span></td><td><size>93</size></td></tr>
</table>
</body>
</html>
"""
APACHE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN" "http://www.w3.org/TR/html4/strict.dtd">
<html>
 <head>
  <title>Index of /my copy/repo</title>
 </head>
 <body>
<h1>Index of /my copy/repo</h1>
<ul><li><a href="/my%20copy/"> Parent Directory</a></li>
<li><a href="config"> config</a></li>
<li><a href="packs/"> packs/</a></li>
</ul>
</body></html>
"""


@pytest.mark.parametrize("page", [NGINX, LIGHTTPD, PYTHON, RCLONE], ids=["nginx", "lighttpd", "python", "rclone"])
def test_known_pages(page: str) -> None:
    assert sorted(read_index(URL, page.encode(), "a/")) == [("a/config", 0), ("a/packs/", 0)]
    assert sorted(read_index(URL, page.encode(), "")) == [("config", 0), ("packs/", 0)]


def test_the_root_of_a_server() -> None:
    page = PYTHON.replace("/my copy/repo/", "/")
    assert sorted(read_index("http://127.0.0.1:8080/", page.encode(), "")) == [("config", 0), ("packs/", 0)]


def test_links_may_be_written_in_any_way() -> None:
    links = ("./config", "/my%20copy/repo/config", "http://127.0.0.1:8080/my%20copy/repo/con%66ig", "config#top")
    for link in links:
        page = NGINX.replace('href="config"', f'href="{link}"')
        assert ("config", 0) in read_index(URL, page.encode(), ""), link


def test_links_elsewhere_are_decoration() -> None:
    page = NGINX.replace("</pre>", '<a href="https://example.org/x">made by</a><a href="/elsewhere/x">x</a></pre>')
    assert sorted(read_index(URL, page.encode(), "")) == [("config", 0), ("packs/", 0)]


WRONG = {
    "cut short": NGINX.partition("</html>")[0],
    "cut in a tag": NGINX[: NGINX.index('="config"')],
    "of another folder": NGINX.replace("/repo/", "/other/"),
    "no title": NGINX.replace("title", "p"),
    "a login": "<html><head><title>Log in to /my copy/repo</title></head><body></body></html>",
    "a page of its own": "<html><head><title>repo</title></head><body><a href='config'>config</a></body></html>",
    "Apache, which leaves out": APACHE,
    "empty": "",
    "no page": "\0\1\2",
    "one of several": NGINX.replace("</pre>", '<a href="?page=2">more</a></pre>'),
    "with deeper ones": NGINX.replace("</pre>", '<a href="packs/ab/one">one</a></pre>'),
}


@pytest.mark.parametrize("page", WRONG.values(), ids=WRONG.keys())
def test_what_may_be_short_is_no_listing(page: str) -> None:
    with pytest.raises(NoIndex):
        read_index(URL, page.encode(), "")
