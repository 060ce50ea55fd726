"""``python -m snapvault`` is the command ``snapvault``."""

from snapvault.cli.main import main

if __name__ == "__main__":
    main()
