"""Runs the command line as ``python -m anatolab.cli``."""

from anatolab.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
