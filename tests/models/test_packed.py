"""Convolutions with packed weights: the same numbers, whatever happens to the layer, and no hindrance to others."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wavemix_pl import create_model
from wavemix_pl.measurement import flops
from wavemix_pl.models import packed
from wavemix_pl.models.packed import pack

pytestmark = pytest.mark.skipif(not packed._PRECISIONS, reason="this processor's torch packs no weights")

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "1x1": lambda: nn.Conv2d(8, 12, 1),
    "2x2, no bias": lambda: nn.Conv2d(8, 12, 2, stride=2, bias=False),
    "same": lambda: nn.Conv2d(8, 8, 3, padding=1, dilation=2, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
    "transposed, odd": lambda: nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1, bias=False),
}


def packed_copy(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).eval().requires_grad_(False)
    model = nn.Sequential(layer)
    pack(model)
    return model[0]


def is_packed(layer: nn.Module) -> bool:
    return "_packed" in layer.__dict__


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_same_outputs(name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """At the size of the first images and at others, one image or more."""
    if dtype not in packed._PRECISIONS:
        pytest.skip("no bfloat16 here")
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype).to(memory_format=torch.channels_last)
    found = packed_copy(layer)
    for shape in ((2, 8, 12, 10), (1, 8, 5, 7), (3, 8, 20, 20)):
        images = torch.randn(shape, dtype=dtype).contiguous(memory_format=layout)
        out, expected = found(images), layer(images)
        torch.testing.assert_close(out, expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)
        assert out.stride() == expected.stride()
    assert is_packed(found)


def test_what_changes_a_weight_is_seen() -> None:
    layer = nn.Conv2d(4, 4, 1).eval()
    found, images = packed_copy(layer), torch.randn(2, 4, 6, 6)
    found(images)
    other = nn.Conv2d(4, 4, 1)
    changes: list[Callable[[nn.Module], Any]] = [
        lambda module: module.load_state_dict(other.state_dict()),
        lambda module: module.weight.mul_(2),
        lambda module: module.double(),
        lambda module: module.float(),
        lambda module: setattr(module, "weight", nn.Parameter(other.weight.detach() * 3, requires_grad=False)),
    ]
    for change in changes:
        change(found)
        images = images.to(found.weight.dtype)
        torch.testing.assert_close(found(images), nn.functional.conv2d(images, found.weight, found.bias))


def test_copies_and_pickles() -> None:
    """They have no packed weights, and make their own."""
    found, images = packed_copy(nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)), torch.randn(2, 4, 6, 6)
    expected = found(images)
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    for again in (copy.deepcopy(found), torch.load(file, weights_only=False)):
        assert not is_packed(again)
        torch.testing.assert_close(again(images), expected)
        assert is_packed(again)
    assert set(found.state_dict()) == {"weight", "bias"}


def _gradient(layer: nn.Module, images: Tensor) -> None:
    layer(images.requires_grad_()).sum().backward()
    assert images.grad is not None


def _autocast(layer: nn.Module, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16


def _export(layer: nn.Module, images: Tensor) -> None:
    names = {str(node.target) for node in torch.export.export(layer, (images,)).graph.nodes}
    assert any("aten.conv2d" in name for name in names), names


def _trace(layer: nn.Module, images: Tensor) -> None:
    assert "mkldnn" not in str(torch.jit.trace(layer, (images,), check_trace=False).graph)


def _count(layer: nn.Module, images: Tensor) -> None:
    assert flops(lambda: layer(images)) == 2 * 2 * 36 * 16


@pytest.mark.parametrize("use", [_gradient, _autocast, _export, _trace, _count])
@pytest.mark.filterwarnings("ignore:`torch.jit")  # it is deprecated, but in use
def test_uses_that_packed_weights_do_not_suit(use: Callable[[nn.Module, Tensor], None]) -> None:
    layer, images = packed_copy(nn.Conv2d(4, 4, 1)), torch.randn(2, 4, 6, 6)
    use(layer, images)
    assert not is_packed(layer)
    layer(images.detach())
    assert is_packed(layer)
    use(layer, images.detach())


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_fused_models_are_packed(task: Any) -> None:
    model = create_model("WaveMix-16/2 (level 2)", 5, task=task, stem="patchify").eval()
    fused, images = model.fuse(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), model(images), rtol=1e-4, atol=1e-5)
    layers = [layer for layer in fused.blocks.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert layers
    used = [is_packed(layer) for layer in layers]
    assert used.count(False) == (task == "classification")  # the last transposed convolution, whose mean is known
