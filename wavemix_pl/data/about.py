"""What is known of a published data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What `wavemix-pl datasets` says of a data set.

    Attributes:
        train: Number of training images, as its makers divided it.
        test: Number of the images that `test` uses.
        classes: K.
        licence: In a word.
        source: Address of its home page.
        size_gb: Of the download.
        how: What to do where it is missing.
        note: What else one must know, such as that a log-in is needed.
    """

    train: int
    test: int
    classes: int
    licence: str
    source: str
    size_gb: float
    how: str = "pass --data.root=FOLDER or --data.download=true"
    note: str = ""
