"""Receptive fields against known ones, against sets that are counted by hand, and against brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.figures.network import networks
from wavemix_pl.figures.receptive_field import (
    draw_receptive_fields,
    gradient_fields,
    impulse_responses,
    layer_maps,
    random_gradient_fields,
    reach,
    side_of_share,
    unit_copy,
)
from wavemix_pl.models.wavemix import WaveMixBlock


def block(level: int) -> nn.Sequential:
    """A block alone, in which every weight takes part."""
    torch.manual_seed(0)
    return nn.Sequential(WaveMixBlock(WaveMixConfig(dim=8, depth=1, level=level, dropout=0.0))).double().eval()


def test_one_convolution_and_two() -> None:
    one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
    first, second = impulse_responses(unit_copy(one), ["0", "1"], (9, 11))
    expected = torch.zeros(9, 11, dtype=torch.float64)
    expected[3:6, 4:7] = 1
    assert torch.equal(first, expected)
    taps = torch.tensor([1.0, 2, 3, 2, 1], dtype=torch.float64)
    assert torch.allclose(second[2:7, 3:8], torch.outer(taps, taps) / 9)
    assert reach(second) == (5, 5)
    assert one[0].weight.unique().numel() > 1  # type: ignore[union-attr]  # the model itself keeps its weights


def test_impulse_of_a_lite_block() -> None:
    """Cell c goes to the outputs 2c - 1 to 2c + 2; with all weights one, of a cell its upper left pixel alone."""
    unit = unit_copy(block(1))
    (even,) = impulse_responses(unit, ["0"], (16, 16), (6, 8), channels=8)
    assert even.ne(0).nonzero().unique(dim=0).tolist() == [[r, c] for r in range(5, 9) for c in range(7, 11)]
    (odd,) = impulse_responses(unit, ["0"], (16, 16), (7, 9), channels=8)
    assert odd.ne(0).nonzero().tolist() == [[7, 9]]  # the residual connection


def inputs_of(output: int, level: int) -> set[int]:
    """Along one side, the pixels that an output of a block depends on but for the residual, by counting.

    A transposed convolution with kernel 4, stride 2, padding 1 writes cell c to 2c - 1 ... 2c + 2. Cell c of level 1
    holds the pixels 2c and 2c + 1; what comes up from the next level is read at c, and is of approximations of cells.
    """
    pixels: set[int] = set()
    for cell in range(-10, 100):
        if 2 * cell - 1 <= output <= 2 * cell + 2:
            cells = {cell} | (inputs_of(cell, level - 1) if level > 1 else set())
            pixels |= {pixel for c in cells for pixel in (2 * c, 2 * c + 1)}
    return pixels


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_gradient_of_a_block_reaches_what_counting_says(level: int, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    (field,) = gradient_fields(block(level), ["0"], torch.randn(2, 8, *size, dtype=torch.float64))
    rows, columns = (
        {pixel for pixel in inputs_of(side // 2, level) | {side // 2} if 0 <= pixel < side} for side in size
    )
    found = {(row, column) for row, column in field.ne(0).nonzero().tolist()}
    assert found == {(row, column) for row in rows for column in columns}


def test_gradient_against_brute_force() -> None:
    """Each pixel of an image is changed in turn: the output in the middle moves, or does not move at all."""
    torch.manual_seed(0)
    model = create_model("WaveMix-8/2 (level 2)", 3, in_channels=1, dropout=0.0).double().eval()
    image = torch.randn(1, 1, 20, 20, dtype=torch.float64)
    for layer in ("blocks.0", "blocks.1"):
        (field,) = gradient_fields(model, [layer], image)
        changed = image.repeat(400, 1, 1, 1)
        changed.view(400, 400).diagonal().add_(1.0)
        with torch.no_grad():
            (after,), (before,) = layer_maps(model, [layer], changed), layer_maps(model, [layer], image)
        moved = (after - before)[:, :, 10, 10].abs().amax(1).view(20, 20) > 1e-13
        assert torch.equal(moved, field > 1e-11)
        assert 16 < int(moved.sum()) <= 400


def test_peers_of_the_figure() -> None:
    """ResNet-18's fields are 27, 43 and 99 pixels by the usual formula; attention reaches everything at once."""
    pytest.importorskip("timm", reason="comes with the extra [figures]")
    of_names = {network.name.split("\n")[0]: network for network in networks((1, 2, 4), (128, 128))}
    resnet = random_gradient_fields(of_names["ResNet-18"], (128, 128), draws=1)
    assert [reach(field) for field in resnet] == [(27, 27), (43, 43), (99, 99)]
    vit = of_names["ViT"]
    assert all(reach(field) == (128, 128) for field in random_gradient_fields(vit, (128, 128), draws=1))
    responses = impulse_responses(unit_copy(vit.build()), vit.layers, (128, 128))
    assert all(response.shape == (8, 8) and bool(response.gt(0).all()) for response in responses)


def test_same_seed_same_field() -> None:
    network = networks((1, 2))[0]
    state = torch.get_rng_state()
    first, second = (random_gradient_fields(network, (32, 32), draws=2, seed=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_shares() -> None:
    field = torch.zeros(20, 20)
    field[3:6, 3:6] = 1.0
    assert side_of_share(field, 0.95) == 3
    field[10, 10] = 91.0
    assert side_of_share(field, 0.9) == 1
    assert reach(torch.zeros(4, 4)) == (0, 0)
    assert reach(field) == (8, 8)


def test_drawing() -> None:
    maps: list[Tensor] = [torch.rand(4, 4), torch.rand(8, 8)]
    figure = draw_receptive_fields(["a", "b"], [maps, maps], [[torch.rand(16, 16)] * 2] * 2, (1, 2))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels.count("16 px") == 4
    assert sum("95% in" in label for label in labels) == 4
