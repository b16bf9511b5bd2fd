"""The order in which a run sees its training images: known from its seed and from where the run stands."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset


class TrainingSampler(DistributedSampler[Any]):
    """An order that depends on the seed and the epoch alone; each device gets an equal share, and the rest is left out.

    Args:
        dataset: What is drawn from.
        world: Number of devices.
        rank: Of this device.
        seed: Of the run.
        seen: Says, when the first epoch of this sampler begins, how many images of its share a device has seen of it
            already; None for none.
        tells_epoch: Whether an index says the epoch as well, as `TransformedImages` wants it: epoch * number of images
            + image.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        world: int = 1,
        rank: int = 0,
        seed: int = 0,
        seen: Callable[[], int] | None = None,
        tells_epoch: bool = False,
    ) -> None:
        super().__init__(dataset, world, rank, shuffle=True, seed=seed, drop_last=True)
        self._seen, self.tells_epoch = seen, tells_epoch

    def order(self) -> list[int]:
        """The share of the device in the epoch, from its beginning."""
        return list(super().__iter__())

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset) if self.tells_epoch else 0  # type: ignore[arg-type]  # ours have a length
        seen, self._seen = self._seen() if self._seen else 0, None
        return (first + index for index in islice(self.order(), seen, None))


class BlockSampler(TrainingSampler):
    """An order within a few blocks of images at a time, one group of blocks after the other, drawn anew each epoch.

    Each device gets a stretch of it: it reads blocks that no other reads, but for those at the ends of the stretch.

    Args:
        dataset: What is drawn from.
        blocks: Number of the block of each image (N,).
        at_once: Blocks in a group.
        arguments: As in `TrainingSampler`.
    """

    def __init__(self, dataset: Dataset[Any], *arguments: Any, blocks: Tensor, at_once: int = 4, **more: Any) -> None:
        super().__init__(dataset, *arguments, **more)
        self.blocks, self.at_once = blocks, at_once

    def order(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        kinds = self.blocks.unique()
        groups = kinds[torch.randperm(len(kinds), generator=generator)].split(self.at_once)
        parts = [torch.isin(self.blocks, group).nonzero().flatten() for group in groups]
        order = torch.cat([part[torch.randperm(len(part), generator=generator)] for part in parts])
        start = self.rank * self.num_samples
        share: list[int] = order[start : start + self.num_samples].tolist()
        return share


class TrainingLoader(DataLoader[Any]):
    """Loads nothing before a batch is asked for.

    Lightning makes the first iterator before it says which epoch it is. Workers would begin at once, with the order of
    epoch 0 and from its start, whatever the checkpoint says from which the run goes on.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator of what the iterator gives
        yield from super().__iter__()

    def images_of(self, batch: int) -> list[int]:
        """Which images of the whole data set, validation images included, a batch of the present epoch holds here."""
        assert self.batch_size is not None
        assert isinstance(self.sampler, TrainingSampler)
        images = self.sampler.order()[batch * self.batch_size : (batch + 1) * self.batch_size]
        dataset = self.dataset
        while hasattr(dataset, "dataset"):
            images = [dataset.indices[image] for image in images] if isinstance(dataset, Subset) else images
            dataset = dataset.dataset
        return images

    # The sampler knows where to go on. That there are these methods keeps Lightning from warning that nothing does.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def prepare_worker(worker: int, rank: int) -> None:
    """Seeds a worker as Lightning would, and lets it outlive the signals that a scheduler sends to all processes.

    The run's own process writes a checkpoint then, for which it must get to the end of a step.
    """
    pl_worker_init_function(worker, rank)
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows lacks one
            signal.signal(getattr(signal, name), signal.SIG_IGN)
