"""The entry point: the group of verbs, and how errors and interrupts end the process."""

import errno
import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import TracebackType

import click

from snapvault.cli.common import common_options
from snapvault.cli.interrupt import ignore_interrupts, terminate_as_interrupt
from snapvault.cli.output import LogHandler
from snapvault.cli.settings import Settings
from snapvault.foundation.errors import Cancelled, InvalidInput, SnapvaultError

VERBS = (
    "init", "backup", "snapshots", "ls", "diff", "restore", "check", "forget", "prune", "key", "site", "register",
    "drill", "evidence", "status",
)  # fmt: skip
NO_VERB = 2
INTERRUPTED = 130
OVERVIEW = """\
snapvault: deduplicating, encrypted backups

  export SNAPVAULT_REPOSITORY=/mnt/disk/repo         (or -r REPOSITORY with each command)
  snapvault init                                     make a repository; asks for a new password
  snapvault backup --dataset home /home/me           store a snapshot
  snapvault snapshots                                list them
  snapvault ls home@latest:/home/me                  look into one
  snapvault restore home@latest --target /tmp/back   bring it back
  snapvault check                                    see whether all is there and whole

Others: diff, forget, prune, key, site, register, drill, evidence, status.
'snapvault VERB --help' explains one, 'snapvault --help' the common options."""


class Verbs(click.Group):
    """Loads a verb's file when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb's command, None if there is no such verb."""
        if name not in VERBS:
            return None
        command = getattr(import_module(f"snapvault.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from snapvault.version import PROGRAM  # reads the package's metadata, which takes a while

        click.echo(PROGRAM)
        context.exit()


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)  # fmt: skip
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@common_options
@click.pass_context
def cli(context: click.Context) -> int:
    """Deduplicating, encrypted backups.

    \b
    snapvault -r /mnt/disk/repo init
    snapvault -r /mnt/disk/repo backup --dataset home /home/me
    snapvault -r /mnt/disk/repo restore home@latest --target /tmp/back

    Options may stand before or after the verb; what is in [BRACKETS] can come from the environment.

    \b
    Exit codes: 0 good, 1 aborted, 2 usage or configuration, 3 items were skipped, 10 no repository,
    12 wrong key or password, 13 the key's role may not, 20 stored data is damaged, 21 an objective was breached,
    22 a drill failed, 130 interrupted.
    """
    settings = context.ensure_object(Settings)
    settings.debug = settings.debug or bool(os.environ.get("SNAPVAULT_DEBUG"))
    if context.invoked_subcommand is None:
        if settings.out.as_json:
            raise InvalidInput("no verb is given", hint="'snapvault --help' lists them")
        click.echo(OVERVIEW, err=True)
    return NO_VERB


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    gc.freeze()  # this process is ours: what was imported stays, and little of what a command makes is in cycles
    gc.set_threshold(50_000, 20, 50)
    try:
        code = run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # one more, while the first was being told
        code = INTERRUPTED
    ignore_interrupts()  # what came of it is settled, and told
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run the command line: its exit code.  Whatever went wrong is a sentence, with the way out."""
    settings = Settings()
    settings.out.as_json = "--json" in argv[: list(argv).index("--") if "--" in argv else None]
    settings.debug = "--debug" in argv or bool(os.environ.get("SNAPVAULT_DEBUG"))
    sys.excepthook = _report_bug
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # replaced by a caller's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    terminate_as_interrupt()
    _log_to(settings)
    try:
        # If nobody reads the output any more (``snapvault ls ... | head``), click exits with 1, silently.
        code = cli.main(list(argv), "snapvault", standalone_mode=False, obj=settings)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        settings.out.error(Cancelled("interrupted", hint=""))
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message(), err=True)
        return NO_VERB
    except (click.ClickException, SnapvaultError, OSError) as e:
        error = _as_ours(e)
        with suppress(BrokenPipeError):
            settings.out.error(error)
        if settings.debug:
            _trace(e)
        return error.exit_code


def _as_ours(error: click.ClickException | SnapvaultError | OSError) -> SnapvaultError:
    if isinstance(error, SnapvaultError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"'{context.command_path} --help' shows what can be given" if context is not None else ""
        return InvalidInput(error.format_message().rstrip("."), hint=hint)
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return SnapvaultError(f"{where}{error.strerror or error}", hint="free space there and run again" if full else "")


def _log_to(settings: Settings) -> None:
    logger = logging.getLogger("snapvault")
    logger.handlers[:] = [LogHandler(settings.out, debug=settings.debug)]
    logger.setLevel(logging.DEBUG if settings.debug else logging.WARNING)
    logger.propagate = False


def _trace(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's last resort for what nobody caught: exit code 1, and a traceback only for who asked."""
    if "--debug" in sys.argv or os.environ.get("SNAPVAULT_DEBUG"):
        _trace(error)
    message = f"snapvault: this should not have happened: {kind.__name__}: {error}"
    sys.stderr.write(
        f"{message.encode('unicode_escape').decode()}\n"
        "  hint: please report it with what SNAPVAULT_DEBUG=1 shows; run the command again when the cause is mended\n"
    )
