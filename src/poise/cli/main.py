"""Dispatch ``poise NAME …`` to the module of the command, and convert errors to exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from poise.cli.arguments import CommandLineError, parse
from poise.suggestions import did_you_mean
from poise.version import __version__

COMMANDS = {
    "demo": "Train and evaluate a small detector on generated scenes, with a report",
    "demo-data": "Write generated scenes as a COCO data set",
    "train": "Train a model or recipe on your data",
    "ablate": "Train variants of a recipe and compare them in a table",
    "recipes": "List the recipes",
    "models": "List the models",
    "weights": "List, fetch and verify the weights that the original projects published",
    "shard": "Write a data set as tar shards with packed annotations",
    "check": "Report the faults of a data set",
    "eval": "Evaluate a trained model with the COCO and LVIS metrics",
    "compare": "Say whether one trained model is better than another, by class and image by image",
    "predict": "Detect objects in images, folders and videos",
    "export": "Export a trained model to ONNX Runtime, OpenVINO, ncnn or ExecuTorch",
    "push": "Upload a trained model with a model card to the Hugging Face Hub",
    "lab": "Show the loss weights of every prior of a detector: a page for the browser, comparisons, statistics",
    "sampling": "Show which negatives the samplers of a two-stage model choose",
}

OTHERS = "torch|torchvision|timm|onnx|onnxruntime|onnxscript|openvino|nncf|executorch|torchao|huggingface_hub"
"""Packages whose own warnings are not shown, except with ``--debug``."""

DONE, FAILED, USAGE, FAULTS, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: success; an error in data, files or settings; a wrong command line; faults of a data set; Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``poise``; those of the process by default.

    Returns:
        the exit code (see ``docs/cli.md``).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may have characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in words
    warnings.formatwarning = lambda message, *_, **__: f"poise: warning: {message}\n"  # without a path in site-packages
    if not debug and argv is None:
        warnings.filterwarnings("ignore", module=rf"({OTHERS})(\.|$)")
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(_import_packages(words))
    except CommandLineError as error:
        return _print_error(error, USAGE, debug)
    except KeyboardInterrupt:
        print("\npoise: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended, as in `poise models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError) as error:
        return _print_error(error, FAILED, debug)
    except (RuntimeError, ImportError) as error:
        ours = type(error).__module__.startswith("poise.")
        extra = isinstance(error, ImportError) and "pip install" in str(error)
        if not (ours or extra):  # a bug of poise or PyTorch: the traceback is needed
            raise
        return _print_error(error, FAILED, debug)


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"poise {__version__}")
        return DONE
    if not words or words[0] in ("--help", "-h", "help"):
        _print_help()
        return DONE if words else USAGE
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise CommandLineError(f"no command '{name}'{did_you_mean(name, COMMANDS)}; poise --help lists them")
    command: Any = importlib.import_module(f"poise.cli.{name.replace('-', '_')}")
    if hasattr(command, "parse"):  # train, ablate, lab: the options depend on the first argument
        return int(command.run(command.parse(rest)))
    details = getattr(command, "HELP", None)
    return int(command.run(parse(command.Arguments, f"poise {name}", rest, details=details)))


def _import_packages(words: list[str]) -> list[str]:
    """Import the packages that ``--import`` names before the command, and return the words after them."""
    while words and words[0].partition("=")[0] == "--import":
        _, sign, package = words[0].partition("=")
        package, words = (package, words[1:]) if sign else ("".join(words[1:2]), words[2:])
        if not package:
            raise CommandLineError("--import needs the name of a package: poise --import my_package COMMAND …")
        sys.path.insert(0, os.getcwd())  # the user's package may be in the current folder
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package.partition(".")[0]:
                raise
            raise CommandLineError(
                f"--import {package}: there is no such package here or among the installed ones"
            ) from error
    return words


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print("[bold]poise[/] - balanced training of object detectors\n")
    console.print("[bold]usage[/]: poise [cyan]COMMAND[/] [ARGUMENTS] [--debug]\n")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    for name, summary in COMMANDS.items():
        table.add_row(f"  [cyan]{name}[/]", summary)
    console.print(table)
    console.print(
        "\n[cyan]poise COMMAND --help[/] explains the usual options of a command, [cyan]--help-all[/] all of them; "
        "--debug shows the traceback of an error; --version."
    )


def _print_error(error: Exception, code: int, debug: bool) -> int:
    if debug:
        raise error
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    print(f"poise: {text}", file=sys.stderr)
    return code
