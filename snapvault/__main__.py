"""The command ``snapvault``, which is also ``python -m snapvault``."""

import signal


def main() -> None:
    """Run the command line and exit with its code.

    Ctrl-C while it is still being loaded ends the process by the signal: there is nothing to tell yet.
    """
    loading = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else somebody chose to ignore it
    if loading:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from snapvault.cli.main import main as run

    if loading:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
