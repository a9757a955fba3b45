"""Selects the command, and turns its failures into one sentence and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

from anatolab.errors import InputError, NonFiniteError, Notice

COMMANDS = {  # each a module beside this one, imported when it is asked for
    "cohort": "Generate patients in the layout of a public data set.",
    "check": "Describe a folder of patients and list all its problems.",
    "train": "Train a method; the same command resumes an interrupted run.",
    "evaluate": "Measure a run on annotated patients.",
    "predict": "Write the label volume of each image, as NIfTI, PNG or TIFF.",
    "robust": "Fit and compare group-robust classifiers on frozen features.",
    "embed": "Draw the features of a run with t-SNE or UMAP, as one page.",
    "export": "Write the weights of a run with a model card, for sharing.",
}
HELP = f"""usage: anatolab {{{",".join(COMMANDS)}}} ...

Segment anatomy from few labeled patients. Data sets are recognized by their files: ACDC, LA, LiTS, MM-WHS and Synapse
as released or as widely preprocessed, and your own in the layout of the Decathlon or nnU-Net.

{chr(10).join(f"  {name:10}{text}" for name, text in COMMANDS.items())}

anatolab COMMAND --help lists the flags of a command; anatolab --version prints the version. Exit codes: 0 success,
1 wrong input or problems in the data, 2 wrong flags, 3 training was stopped and can be continued, 130 interrupted."""
NO_MEMORY = ("allocate memory", "out of memory", "not enough memory")  # in what torch raises
TOO_LITTLE_MEMORY = "memory: there is not enough of it; use fewer images per step, smaller patches, or fewer cases."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; every failure ends with one sentence and a nonzero exit code.

    ``ANATOLAB_SIZE`` (``tiny``, ``demo`` or ``full``; ``demo`` where unset) decides the defaults that ``--help`` shows.

    Args:
        arguments: Those of the process where None.

    Returns:
        The exit code, see :data:`HELP`.
    """
    os.environ.setdefault("ANATOLAB_SIZE", "demo")
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what is wrong with a header, readers say
    with suppress(AttributeError):  # of a stream that a caller put there
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that a terminal lacks
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = _show
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
            return code
        except (InputError, NonFiniteError) as error:
            return _fail(str(error))
        except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # Python flushes it at the end
            return 1
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return _fail(f"{where}{error.strerror or error}; check the path, its permissions and the free space.")
        except MemoryError:
            return _fail(TOO_LITTLE_MEMORY)
        except OverflowError as error:
            return _fail(f"a number is too large ({error}); give a smaller one.")
        except RecursionError:
            return _fail("a file is nested too deeply; write it again without so many brackets.")
        except RuntimeError as error:
            if not any(text in str(error) for text in NO_MEMORY):
                raise
            return _fail(TOO_LITTLE_MEMORY)
        except KeyboardInterrupt:
            return _fail("interrupted.", 130)


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(HELP)
        return 0
    if name == "--version":
        from anatolab import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        return _fail(f"{name!r} is not one of its commands, which are {known}." if name else f"name one of {known}.", 2)
    import tyro

    from anatolab.presets import current_size

    current_size()  # refuses another ANATOLAB_SIZE
    command: Any = import_module(f"anatolab.cli.{name}").command(arguments[1:])
    code = tyro.cli(
        command,
        prog=f"anatolab {name}",
        args=arguments[1:],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return int(code or 0)


def _fail(sentence: str, code: int = 1) -> int:
    print(f"anatolab: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints notices as sentences; warnings of libraries keep their form."""
    if issubclass(category, Notice):
        print(f"anatolab: note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
