"""Where credentials come from, and that they stay there: neither what is printed nor what is kept has them."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import s3stub
from s3stub import Answer
from servers import KEY, SECRET

import snapvault
from snapvault.backend.factory import open_backend

pytestmark = pytest.mark.server
LOGIN = base64.b64encode(f"u:{SECRET}".encode()).decode()
# One process for all commands: what fsspec finds in its environment and its files is read when it is imported.
RUN = """
import contextlib, io, json, os, re, sys
from snapvault.cli.main import run
for argv in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run([*argv, "--debug"])
    print(said.getvalue())
    print("exit", code)
    found = re.search(r"SNAPVAULT-RECOVERY-1(\\n[0-9A-Z-]+)+", said.getvalue())
    if found:  # a password takes 0.2 s each time
        with open(os.environ["HOME"] + "/recovery.key", "w") as file:
            file.write(found[0])
        os.environ["SNAPVAULT_KEY_FILE"] = file.name
"""


@dataclass
class Way:
    """A place, how a library reaches it, and what a user sets up instead so that the command does."""

    url: str
    options: dict[str, Any]
    secrets: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    setup: Path | None = None  # a folder with the user's own files, which may hold secrets


@dataclass
class Said:
    text: str
    codes: list[int]


def command(home: Path, way: Way, *commands: Sequence[object]) -> Said:
    """What several commands said, at the greatest length."""
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(snapvault.__file__).parents[1])}
    env |= {"SNAPVAULT_PASSWORD": "correct horse", "LC_ALL": "C.UTF-8", **way.env}
    argv = [[str(word) for word in words] for words in commands]
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(argv)], env=env, capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return Said(text, [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("exit ")])


def assert_kept_nowhere(way: Way, said: Said, home: Path) -> None:
    """Not printed; not in cache, state or anything else of the home that the user did not put there."""
    for secret in way.secrets:
        assert secret not in said.text, said.text
        for path in home.rglob("*"):
            own = way.setup is not None and path.is_relative_to(way.setup)
            assert secret not in str(path)
            if path.is_file() and not own:
                assert secret.encode() not in path.read_bytes(), path


def s3(request: pytest.FixtureRequest) -> Way:
    url, options = request.getfixturevalue("moto_s3")()
    return Way(url, options, [SECRET])


def s3_options(request: pytest.FixtureRequest, home: Path) -> Way:
    way = s3(request)
    endpoint, way.setup = way.options["client_kwargs"]["endpoint_url"], home / "setup"
    way.setup.mkdir()
    (way.setup / "options.toml").write_text(
        f'schema = 1\n["s3://"]\nkey = "{KEY}"\nsecret = "{SECRET}"\n'
        f'client_kwargs = {{endpoint_url = "{endpoint}", region_name = "us-east-1"}}\n'
    )
    way.env = {"SNAPVAULT_STORAGE_OPTIONS": str(way.setup / "options.toml")}
    return way


def s3_environment(request: pytest.FixtureRequest, home: Path) -> Way:
    way = s3(request)
    way.env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    way.env["AWS_ENDPOINT_URL"] = way.options["client_kwargs"]["endpoint_url"]
    return way


def s3_configuration(request: pytest.FixtureRequest, home: Path) -> Way:
    """fsspec's own, with settings of botocore that must not push out those of snapvault."""
    way = s3(request)
    way.setup = home / ".config/fsspec"
    way.setup.mkdir(parents=True)
    content = {**way.options, "config_kwargs": {"connect_timeout": 3}}
    (way.setup / "stores.json").write_text(json.dumps({"s3": content}))
    return way


def sftp_environment(request: pytest.FixtureRequest, home: Path) -> Way:
    url, options = request.getfixturevalue("rclone_sftp")()
    env = {f"FSSPEC_SFTP_{name.upper()}": value for name, value in options.items()}
    return Way(url, options, [SECRET], env)


def sftp_as_with_ssh(request: pytest.FixtureRequest, home: Path) -> Way:
    """A user name in the URL, a key and a known host in ~/.ssh; nothing else."""
    url, options = request.getfixturevalue("openssh")()
    way = Way(url.replace("sftp://", f"sftp://{options['username']}@"), options, [], setup=home / ".ssh")
    assert way.setup is not None
    way.setup.mkdir(mode=0o700)
    key = Path(options["key_filename"])
    shutil.copy(key, way.setup / "id_ed25519")
    host = key.with_name("host_key.pub").read_text()
    (way.setup / "known_hosts").write_text(f"[127.0.0.1]:{url.split(':')[2].split('/')[0]} {host}")
    way.secrets = key.read_text().splitlines()[1:-1]
    return way


@pytest.mark.parametrize(
    "make", [s3_options, s3_environment, s3_configuration, sftp_environment, sftp_as_with_ssh], ids=lambda f: f.__name__
)
def test_where_credentials_come_from(make: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "file").write_text("text")
    way: Way = make(request, home)
    at = ["-r", way.url]
    said = command(
        home, way,
        [*at, "init"], [*at, "backup", "--dataset", "d", tmp_path / "file"], [*at, "site", "add", "b", f"{way.url}-2"],
        [*at, "site", "list"], [*at, "backup", "--dataset", "d", f"{way.url}-nothing-there"],
    )  # fmt: skip
    assert said.codes == [0, 0, 0, 0, 1], said.text
    assert_kept_nowhere(way, said, home)
    with contextlib.closing(open_backend(way.url, way.options)) as backend:
        for info in backend.list():
            body = backend.get(info.name)
            assert not any(secret in info.name or secret.encode() in body for secret in way.secrets)


def webdav_environment(request: pytest.FixtureRequest, home: Path) -> tuple[Way, Path]:
    folder, (url, options) = request.getfixturevalue("webdav")()
    return Way(url, options, [SECRET, LOGIN], {"FSSPEC_WEBDAV": json.dumps(options)}), folder


def http_configuration(request: pytest.FixtureRequest, home: Path) -> tuple[Way, Path]:
    folder, (url, options) = request.getfixturevalue("rclone_http")()
    way = Way(url, options, [SECRET, LOGIN], setup=home / ".config/fsspec")
    assert way.setup is not None
    way.setup.mkdir(parents=True)
    (way.setup / "web.json").write_text(json.dumps({"http": options}))
    return way, folder


@pytest.mark.parametrize("make", [webdav_environment, http_configuration], ids=lambda f: f.__name__)
def test_what_can_only_be_read(make: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "file").write_text("text")
    way, folder = make(request, home)
    here, at = ["-r", folder], ["-r", way.url]
    said = command(
        home, way,
        [*here, "init"], [*here, "backup", "--dataset", "d", tmp_path / "file"],
        [*at, "snapshots"], [*at, "restore", "latest", "--target", tmp_path / "out"], [*at, "check", "--read-data"],
        [*here, "site", "add", "shown", way.url], [*here, "site", "push", "shown"], [*at, "init"],
        [*at, "backup", "--dataset", "d", tmp_path / "file"],
    )  # fmt: skip
    assert said.codes == [0, 0, 0, 0, 0, 0, 1, 1, 1], said.text
    assert said.text.count("can only be read") >= 3
    assert (tmp_path / "out" / str(tmp_path)[1:] / "file").read_text() == "text"
    assert_kept_nowhere(way, said, home)


def test_credentials_that_are_wrong(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every kind of place refuses them, and nobody says what they were."""
    wrong = "no-such-secret"
    secret = {"key": KEY, "secret": wrong}
    endpoint = request.getfixturevalue("seaweedfs")()[1]["client_kwargs"]  # moto takes any
    env = {"FSSPEC_S3": json.dumps({**secret, "client_kwargs": endpoint}), "FSSPEC_SFTP_PASSWORD": wrong}
    env |= {"FSSPEC_SFTP_USERNAME": "u", "FSSPEC_SFTP_HOST_KEY_POLICY": "auto_add"}
    base = request.getfixturevalue("webdav")()[1][1]["base_url"]
    env |= {"FSSPEC_WEBDAV": json.dumps({"base_url": base, "auth": ["u", wrong]})}
    env |= {"FSSPEC_HTTP": json.dumps({"headers": {"Authorization": f"Basic {wrong}"}})}
    urls = ["s3://bucket/repo", request.getfixturevalue("rclone_sftp")()[0], "webdav://repo"]
    urls += [request.getfixturevalue("rclone_http")()[1][0]]
    way = Way("", {}, [wrong], env)
    said = command(tmp_path / "home", way, *(["-r", url, "snapshots"] for url in urls))
    assert said.codes == [1] * len(urls) and said.text.count("check credentials and permissions") >= 4, said.text
    assert_kept_nowhere(way, said, tmp_path / "home")


def test_credentials_in_a_url(tmp_path: Path) -> None:
    """Refused before anything is asked or kept, and not repeated."""
    way = Way("", {}, ["sec-ret"])
    urls = ["s3://key:sec-ret@bucket/r", "sftp://u:sec-ret@127.0.0.1/r", "https://u:sec-ret@127.0.0.1/r"]
    urls += ["https://127.0.0.1/r?token=sec-ret", "webdav://u:sec-ret@r", "ftp://u:sec-ret@127.0.0.1/r"]
    here = ["-r", tmp_path / "repo"]
    used = [words for url in urls for words in (["-r", url, "snapshots"], [*here, "site", "add", "x", url])]
    said = command(tmp_path / "home", way, [*here, "init"], *used)
    assert said.codes == [0] + [2] * len(used), said.text
    assert_kept_nowhere(way, said, tmp_path / "home")


def test_what_a_server_repeats(tmp_path: Path) -> None:
    """Some put what they were sent into their errors; not even the traceback that was asked for shows it."""
    body = b"<Error><Code>AccessDenied</Code><Message>sec-ret is wrong</Message></Error>"
    with s3stub.serve() as stub:
        stub.script = [Answer(headers={"Content-Length": "93"}), Answer(403, body=body)]
        url, options = stub.place()
        way = Way(url, options, ["sec-ret"], {"FSSPEC_S3": json.dumps({**options, "secret": "sec-ret"})})
        said = command(tmp_path / "home", way, ["-r", url, "snapshots"])
    assert said.codes == [1] and "AccessDenied" in said.text, said.text
    assert_kept_nowhere(way, said, tmp_path / "home")
