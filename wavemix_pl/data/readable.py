"""Which images of a data set can be read at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.errors import InputError

_NAMED = 5  # so many images a warning names


def unreadable(
    dataset: Any, progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda found, total: found
) -> Iterator[tuple[int, str]]:
    """Opens every image of a data set, and gives the number of each that cannot be read, with the reason.

    Args:
        dataset: Items are (image, target).
        progress: Shows how far it is, as it passes on what it gets; it is told how many there are.
    """

    def reason(index: int) -> str | None:
        try:
            dataset[index]
        except InputError as error:
            return str(error)
        return None

    count, block = len(dataset), 4096  # not all at once: a pool queues what it is given
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = (range(start, min(start + block, count)) for start in range(0, count, block))
        found = (message for numbers in blocks for message in pool.map(reason, numbers))
        for index, message in enumerate(progress(found, count)):
            if message:
                yield index, message


def without_unreadable(dataset: Dataset[Any], name: str) -> Dataset[Any]:
    """The data set without the images that cannot be read, of which there is a warning.

    Args:
        dataset: Items are (image, target).
        name: In the warning.

    Raises:
        InputError: None can be read.
    """
    if isinstance(dataset, TensorImages) or isinstance(getattr(dataset, "dataset", None), TensorImages):
        return dataset  # in memory already
    broken = dict(unreadable(dataset))
    if not broken:
        return dataset
    total = len(dataset)  # type: ignore[arg-type]  # ours have a length
    if len(broken) == total:
        raise InputError(f"{name}: none of {total:,} images can be read; the first: {next(iter(broken.values()))}")
    more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    named = "; ".join(list(broken.values())[:_NAMED])
    rank_zero_warn(f"{name}: {len(broken):,} of {total:,} are left out, since they cannot be read: {named}{more}")
    return Subset(dataset, [index for index in range(total) if index not in broken])
