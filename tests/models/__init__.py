"""Tests of the plain torch models."""

from torch import nn


def give_statistics(model: nn.Module) -> None:
    """As if its batch norms had been trained: none of their four tensors is what it was made as."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
