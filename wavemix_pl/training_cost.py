"""What training on several devices costs: computation against communication, from a model's measured size.

    python -m wavemix_pl.training_cost

prints the table in `experiments/README.md`. What is counted is the model; how fast devices and network are is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wavemix_pl.measurement import flops
from wavemix_pl.models.wavemix import create_model

_BYTES = 4  # of a gradient and of batch norm's sums, float32 in mixed precision too


@dataclass(frozen=True)
class Size:
    """What of a model decides on the cost.

    Attributes:
        flops: Of an image in training, forwards and backwards; a multiplication and an addition as two.
        params: Number of parameters, whose gradients are sent.
        norms: Number of batch norms.
        norm_channels: Of all of them together.
    """

    flops: int
    params: int
    norms: int
    norm_channels: int


@dataclass(frozen=True)
class Machine:
    """What is assumed of devices and network.

    Attributes:
        flops: That a device does in a second.
        bandwidth: Bytes a second that the slowest connection of the ring carries.
        latency: Seconds of a message of SyncBatchNorm.
    """

    flops: float
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Cost:
    """Of an optimizer step on each device.

    Attributes:
        sent: Bytes that a device sends, and receives as many: gradients by a ring, sums of SyncBatchNorm.
        compute: Seconds.
        communicate: Seconds, if nothing of it happens during the computation.
    """

    sent: float
    compute: float
    communicate: float

    def hours(self, steps: float) -> tuple[float, float]:
        """Of so many steps: with all communication during the computation, as far as it fits in, and with none."""
        return max(self.compute, self.communicate) * steps / 3600, (self.compute + self.communicate) * steps / 3600


def measure(notation: str, num_classes: int, side: int, **overrides: Any) -> Size:
    """Counts on shapes alone: nothing is computed."""
    with torch.device("meta"):
        model = create_model(notation, num_classes, **overrides)
        images = torch.empty(1, 3, side, side)
    norms = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    params = sum(parameter.numel() for parameter in model.parameters())
    return Size(flops(lambda: model(images).sum().backward()), params, len(norms), sum(norms))


def step_cost(size: Size, machine: Machine, devices: int, images: int) -> Cost:
    """Of a step with so many images on each device.

    A ring sends each gradient 2(n-1)/n times. SyncBatchNorm gathers each channel's mean and variance and a count
    forwards, and sums two values backwards.

    >>> size = Size(flops=10**9, params=10**6, norms=2, norm_channels=100)
    >>> step_cost(size, Machine(flops=1e12, bandwidth=1e9, latency=1e-5), devices=4, images=8)
    Cost(sent=6003624.0, compute=0.008, communicate=0.006043624)
    """
    if devices == 1:
        return Cost(0.0, size.flops * images / machine.flops, 0.0)
    ring = 2 * (devices - 1) / devices * _BYTES
    gathered = (devices - 1) * _BYTES * (2 * size.norm_channels + size.norms)
    sent = ring * (size.params + 2 * size.norm_channels) + gathered
    communicate = sent / machine.bandwidth + 2 * size.norms * machine.latency
    return Cost(sent, size.flops * images / machine.flops, communicate)


def main() -> None:
    """Prints the table for ImageNet-1k."""
    size = measure("WaveMix-192/16 (level 3)", 1000, 224, stem="patchify", head_dim=1024)
    print(
        f"{size.params / 1e6:.2f} M parameters, {size.flops / 1e9:.1f} GFLOP an image in training, {size.norms} batch "
        f"norms of {size.norm_channels} channels\n"
    )
    print("| devices | images a step (a device) | PFLOP a step | MB sent | compute, ms | send, ms | 300 epochs, h |")
    print("|---|---|---|---|---|---|---|")
    one_node, nodes = Machine(80e12, 100e9, 30e-6), Machine(80e12, 20e9, 60e-6)
    for devices, batch, machine in ((1, 256, one_node), (8, 256, one_node), (64, 256, nodes), (64, 2048, nodes)):
        cost = step_cost(size, machine, devices, batch // devices)
        least, most = (f"{hours:.1f}" for hours in cost.hours(300 * 1_281_167 / batch))
        print(
            f"| {devices} | {batch} ({batch // devices}) | {size.flops * batch / 1e15:.3f} | {cost.sent / 1e6:.0f} "
            f"| {cost.compute * 1e3:.1f} | {cost.communicate * 1e3:.1f} | {least}{f' to {most}' * (most != least)} |"
        )


if __name__ == "__main__":
    main()
