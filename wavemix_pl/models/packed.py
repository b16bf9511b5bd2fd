"""Convolutions for inference whose weights lie as a CPU's kernels read them.

torch lays weights out anew in every call, but for compiled models; the operators here are those that it uses there.
They know neither gradients nor autocast, and exporters do not know them: then a layer runs as it always does.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def pack(model: nn.Module) -> None:
    """Makes the convolutions of a model lay out their weights with the first images, in memory of their own."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = _PackedConv2d
        elif isinstance(layer, nn.ConvTranspose2d):
            layer.__class__ = _PackedConvTranspose2d


class _PackedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not _fits(self, x):
            return super().forward(x)
        shape = (self.padding, self.stride, self.dilation, self.groups)
        weight = _packed_weight(self, torch.ops.mkldnn._reorder_convolution_weight, *shape, list(x.shape))
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *shape, "none", [], "")
        return out

    def __getstate__(self) -> dict[str, Any]:
        return _state_without_packed(self)


class _PackedConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _fits(self, x):
            return super().forward(x, output_size)
        shape = (self.padding, self.output_padding, self.stride, self.dilation, self.groups)
        weight = _packed_weight(self, torch.ops.mkldnn._reorder_convolution_transpose_weight, *shape, list(x.shape))
        out: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, self.bias, *shape, "none", [], "")
        return out

    def __getstate__(self) -> dict[str, Any]:
        return _state_without_packed(self)


def _packed_weight(layer: nn.Conv2d | nn.ConvTranspose2d, reorder: Callable[..., Tensor], *shape: Any) -> Tensor:
    """The weight as `reorder` lays it out, made anew where it has changed.

    The size of the images is only a hint: what was laid out for others is laid out once more in the call.
    """
    weight = layer.weight
    state = (weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
    known: tuple[object, Tensor] | None = layer.__dict__.get("_packed")
    if known is None or known[0] != state:
        layer.__dict__["_packed"] = known = state, reorder(weight, *shape)
    return known[1]


def _state_without_packed(layer: nn.Module) -> dict[str, Any]:
    """For copies and pickles, which cannot hold such a layout."""
    return {name: value for name, value in layer.__dict__.items() if name != "_packed"}


def _precisions() -> tuple[torch.dtype, ...]:
    """Those that packed weights can have here; on processors of other kinds it was not tried."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


_PRECISIONS = _precisions()


def _fits(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether nothing but numbers is wanted of the layer, and in a precision that it can be packed in."""
    differentiated = torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    traced = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # as torch documents it
        or is_in_torch_dispatch_mode()
    )
    return (
        x.device.type == "cpu"
        and x.dtype == layer.weight.dtype
        and x.dtype in _PRECISIONS
        and not (differentiated or traced or torch.is_autocast_enabled("cpu"))
    )
