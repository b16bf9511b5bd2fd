"""The command `wavemix-pl`: finds the verb, and turns errors that are the user's to mend into one line."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence

from wavemix_pl import __version__
from wavemix_pl.errors import InputError, input_error


def _train(arguments: list[str]) -> None:
    try:
        from wavemix_pl.training import TrainingCLI  # imports lightning, which takes seconds
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise InputError(
            "the torchvision here was not built for the torch here (a CPU build of the one beside a CUDA build of the "
            "other, say): install torchvision anew, from where torch came from"
        ) from error
    TrainingCLI.run(arguments)


def _benchmark(arguments: list[str]) -> None:
    if arguments[1:2] == ["data"]:
        from wavemix_pl import benchmark_data

        benchmark_data.run(arguments[2:])
        return
    from wavemix_pl import benchmark

    benchmark.run(arguments)


def _datasets(arguments: list[str]) -> None:
    from wavemix_pl import datasets

    datasets.run(arguments)


def _tables(arguments: list[str]) -> None:
    from wavemix_pl.paper import tables

    tables.run(arguments)


def _reproduce(arguments: list[str]) -> None:
    from wavemix_pl.paper import reproduce

    reproduce.run(arguments)


def _report(arguments: list[str]) -> None:
    from wavemix_pl.paper import report

    report.run(arguments)


def _weights(arguments: list[str]) -> None:
    from wavemix_pl import weights

    weights.run(arguments)


def _export(arguments: list[str]) -> None:
    from wavemix_pl import export

    export.run(arguments)


def _figures(arguments: list[str]) -> None:
    from wavemix_pl.figures import verb

    verb.run(arguments)


# verb -> what it does, and the function that gets the whole command line, verb included
VERBS: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "fit": ("train a model", _train),
    "validate": ("compute the metrics on the validation images", _train),
    "test": ("compute the metrics on the test images, and report", _train),
    "predict": ("name the classes of image files", _train),
    "tables": ("show the paper's tables, our numbers beside them", _tables),
    "reproduce": ("run a row of a table, and record its numbers", _reproduce),
    "report": ("write all tables as Markdown and as one HTML page", _report),
    "figures": ("draw the paper's figures from our models", _figures),
    "weights": ("list the authors' published weights", _weights),
    "export": ("write a trained model for other engines: ONNX, OpenVINO, torch.export", _export),
    "datasets": ("list the data sets, or check the files of one", _datasets),
    "benchmark": ("measure images a second: models side by side, or 'benchmark data'", _benchmark),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: Without the program's name; None takes it from the process.

    Returns:
        0, or 2 where something given cannot be used: then one line on standard error says what and how to mend it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = arguments[:1] == ["--debug"]
    arguments = arguments[debug:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(f"wavemix-pl {__version__}")
        return 0
    try:
        if arguments[0] not in VERBS:
            nearest = difflib.get_close_matches(arguments[0], VERBS, n=1)
            hint = f", did you mean {nearest[0]!r}?" if nearest else "."
            raise InputError(f"unknown verb {arguments[0]!r}{hint} Known are {', '.join(VERBS)}")
        VERBS[arguments[0]][1](arguments)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        cause = input_error(error)
        if debug or (cause is None and not isinstance(error, OSError)):
            raise
        print(f"wavemix-pl: error: {_one_line(cause or error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: Exception) -> str:
    """What an error says, without the traceback that a worker process puts before it."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error).rpartition("InputError: ")[2].strip()


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<10} {purpose}" for verb, (purpose, _) in VERBS.items())
    return (
        f"usage: wavemix-pl [--debug] VERB [options]\n\n{verbs}\n\n"
        "'wavemix-pl VERB --help' lists the options of a verb; --debug in front shows tracebacks.\n"
        "A first run, which needs no data at hand: wavemix-pl fit --trainer.max_epochs=10"
    )
