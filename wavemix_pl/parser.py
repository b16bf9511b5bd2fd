"""The argument parser's errors in one line."""

from __future__ import annotations

import re
from typing import NoReturn

from jsonargparse import ArgumentParser

from wavemix_pl.errors import InputError


class Parser(ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # one of the parser's own attempts
            super().error(message, ex)
        raise InputError(plain_message(message)) from ex


# What the parser says of types that it tried in vain, and of how it passes nested arguments on.
_PARSER_NOISE = (
    (r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors:", "-"),
    (r"- Expected a path but \S+ either not accessible or invalid", ""),
    (r"- Expected a <class 'NoneType'>", ""),
    (r"Given value type: <class '[^']*'> Given value: NestedArg\(.*?\)$", ""),
    (r"Given value type: <class '[^']*'> Given value:", "- given"),
    (r"Expected a dot import path string: (\S+)", r"no class \1 is known, --help lists those that are"),
    (r"(?:<class '|typing\.)([^'\[]+)'?>?", r"\1"),
)


def plain_message(message: str) -> str:
    """One line of what jsonargparse says in many.

    >>> text = '''Parser key "n":
    ...   Does not validate against any of the Union subtypes
    ...   Subtypes: [<class 'int'>, <class 'NoneType'>]
    ...   Errors:
    ...     - Expected a <class 'int'>
    ...     - Expected a <class 'NoneType'>
    ...   Given value type: <class 'str'>
    ...   Given value: x'''
    >>> plain_message(text)
    'Parser key "n": Expected a int; given x'
    """
    text = " ".join(message.split())
    for pattern, replacement in _PARSER_NOISE:
        text = re.sub(pattern, replacement, text)
    head, *parts = (part.strip(" -") for part in re.split(r"(?: |^)- ", text))
    return f"{head} {'; '.join(dict.fromkeys(part for part in parts if part))}".strip()
