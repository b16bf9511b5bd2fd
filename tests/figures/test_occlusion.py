"""Occlusion by captum against a loop over all windows."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.figures.occlusion import Example, draw_occlusion, find_examples, occlusion_map


def by_hand(model: nn.Module, image: Tensor, label: int, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """The mean probability over all windows that hide a pixel; the last ones may reach over the border."""
    (rows, columns), total = image.shape[-2:], torch.zeros(image.shape[-2:])
    count = torch.zeros_like(total)
    top = 0
    while True:
        left = 0
        while True:
            hidden = image.clone()
            hidden[:, top : top + window[0], left : left + window[1]] = 0
            with torch.no_grad():
                probability = float(model(hidden[None]).softmax(1)[0, label])
            total[top : top + window[0], left : left + window[1]] += probability
            count[top : top + window[0], left : left + window[1]] += 1
            if left + window[1] >= columns:
                break
            left += stride[1]
        if top + window[0] >= rows:
            break
        top += stride[0]
    return total / count


@pytest.mark.parametrize(
    ("window", "stride"), [((2, 2), (2, 2)), ((4, 3), (2, 1)), ((5, 4), (3, 3)), ((9, 10), (1, 1))]
)
def test_against_brute_force(window: tuple[int, int], stride: tuple[int, int]) -> None:
    pytest.importorskip("captum", reason="comes with the extra [figures]")
    torch.manual_seed(0)
    model = create_model("WaveMix-8/1 (level 2)", 4, in_channels=2, dropout=0.0).eval()
    image = torch.randn(2, 9, 10)
    found = occlusion_map(model, image, 3, window, stride)
    assert torch.allclose(found, by_hand(model, image, 3, window, stride), atol=1e-6)


def test_what_matters_is_dark() -> None:
    """A model that looks at one corner: there the probability falls, elsewhere it stays."""
    pytest.importorskip("captum", reason="comes with the extra [figures]")

    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen = images[:, 0, :4, :4].mean((1, 2))
            return torch.stack((4 * seen, torch.zeros_like(seen)), 1)

    found = occlusion_map(Corner(), torch.ones(1, 28, 28), 0)
    probability = float(torch.tensor([4.0, 0.0]).softmax(0)[0])
    assert float(found[:2, :2].max()) == pytest.approx(0.5)
    assert torch.allclose(found[8:, 8:], torch.tensor(probability))
    with pytest.raises(InputError, match="28x28"):
        occlusion_map(Corner(), torch.ones(1, 28, 28), 0, (30, 4))


def test_examples() -> None:
    """Class i is told by i: of targets that agree and targets that do not, the first of each are taken."""

    def model(images: Tensor) -> Tensor:
        return nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float() * 5

    images = torch.tensor([0.0, 1, 2, 1, 0]).view(5, 1, 1, 1)
    targets = torch.tensor([0, 0, 2, 1, 1])
    found = find_examples(model, [(images, targets), (images, targets)], right=4, wrong=1)
    assert [(example.predicted, example.target) for example in found] == [(0, 0), (2, 2), (1, 1), (0, 0), (1, 0)]
    assert found[0].probability == pytest.approx(float(torch.tensor([5.0, 0, 0]).softmax(0)[0]))
    assert len(find_examples(model, [(images, targets)], right=9, wrong=9)) == 5


def test_drawing() -> None:
    examples = [Example(torch.zeros(1, 4, 4), 0, 0, 0.9), Example(torch.zeros(1, 4, 4), 1, 0, 0.5)]
    maps = [torch.full((4, 4), 0.999), torch.linspace(0.25, 0.75, 16).view(4, 4)]
    figure = draw_occlusion(torch.rand(2, 1, 4, 4), maps, examples, ["cat", "dog"])
    titles = [axes.get_title() for axes in figure.axes]
    assert "cat 0.90" in titles
    assert "cat 0.50\n(true: dog)" in titles
    below = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}
    assert [*below] == ["1.00 to 1.00", "0.25 to 0.75"]
    assert all(axes.images[0].get_clim() == (0, 1) for axes in below.values())


def test_without_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match=r"wavemix_pl\[figures\]"):
        occlusion_map(nn.Flatten(), torch.ones(1, 8, 8), 0)
