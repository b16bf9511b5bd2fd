"""Images that lie in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


class TensorImages(Dataset[Any]):
    """A data set that lies in memory, and hands out whole batches by one indexing.

    Args:
        images: (N, C, H, W) uint8.
        targets: (N,) int64.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """What DataLoader asks for instead of single items, where it is there."""
        chosen = torch.tensor(indices)
        return self.images[chosen], self.targets[chosen]
