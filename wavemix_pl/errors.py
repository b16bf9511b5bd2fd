"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """An argument, a file or a data set that cannot be used as it is.

    The message is one line that says what was given, what is accepted, and how to mend it. The command line prints
    it without a traceback and ends with exit code 2; in Python it is an ordinary `ValueError`.
    """


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError that an error was raised from, if any: parsers raise errors of their own from it."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error
