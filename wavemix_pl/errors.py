"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a limit on the size of files


class InputError(ValueError):
    """An argument, a file or a data set that cannot be used as it is.

    The message is one line that says what was given, what is accepted, and how to mend it. The command line prints
    it without a traceback and ends with exit code 2; in Python it is an ordinary `ValueError`.
    """


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError that an error was raised from, if any: parsers raise errors of their own from it.

    One of another process is known by its text alone, the last line of what the launcher of processes says.
    """
    while error is not None and not isinstance(error, InputError):
        of_process = re.search(r"^\S*\bInputError: (.+)$", str(error), re.MULTILINE)
        if of_process and "-- Process" in str(error):
            return InputError(of_process[1])
        error = error.__cause__
    return error


def disk_error(error: BaseException, path: Path) -> InputError | None:
    """What to say where an error came about since there was no space left for `path`; None for other errors."""
    causes = list(_causes(error))
    full = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno in _NO_SPACE), None)
    if full is None:
        return None
    said = next((cause for cause in causes if isinstance(cause, InputError)), None)  # with the path of the very file
    return said or InputError(
        f"{path} could not be written ({full.strerror}): what was there before is unharmed. Free space on its disk, "
        "then go on with the same command and --ckpt_path=last"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while they were dealt with."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
