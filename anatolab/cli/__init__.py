"""The command ``anatolab``: generate or check patients, train on few labels, evaluate a run, predict new images."""

from anatolab.cli.app import main

__all__ = ["main"]
