"""The models that come with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wavemix_pl import WaveMixClassifier, create_model
from wavemix_pl.data import EmbeddedFashionMNIST, FashionScenes
from wavemix_pl.errors import InputError
from wavemix_pl.models.published_weights import find_weights
from wavemix_pl.models.shipped import FOLDER, ShippedModel, shipped_models
from wavemix_pl.models.weights import load_weights, pretrained_model

Run = Callable[..., int]
CLASSIFIERS = [model for model in shipped_models().values() if model.task == "classification"]
EACH = pytest.mark.parametrize("shipped", shipped_models().values(), ids=lambda model: model.name)
EACH_CLASSIFIER = pytest.mark.parametrize("shipped", CLASSIFIERS, ids=lambda model: model.name)


def test_they_are_small() -> None:
    assert len(shipped_models()) >= 1
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 200_000


@EACH
def test_every_way_to_load_one(shipped: ShippedModel) -> None:
    named = pretrained_model(shipped.name)
    built = create_model(
        shipped.notation, shipped.num_classes, shipped.task, in_channels=shipped.config.in_channels, **shipped.overrides
    )
    load_weights(built, shipped.name.upper())
    assert named.config == built.config == shipped.config
    for name, tensor in named.state_dict().items():
        assert torch.equal(tensor, built.state_dict()[name])
    assert find_weights(shipped.name) is shipped


@EACH_CLASSIFIER
def test_it_knows_the_embedded_test_images(shipped: ShippedModel) -> None:
    """1,000 of the 10,000 test images of which its result speaks: three standard deviations are 2.9 points."""
    data = EmbeddedFashionMNIST()
    assert shipped.preprocessing == data.preprocessing
    data.setup("test")
    model = WaveMixClassifier.from_pretrained(shipped.file.parent)
    images, targets = (torch.stack(part) for part in zip(*map(data.test_set.__getitem__, range(1000)), strict=True))  # type: ignore
    with torch.no_grad():
        accuracy = 100 * (model(data.normalize(images)).argmax(1) == targets).float().mean().item()
    assert accuracy == pytest.approx(shipped.results["top-1 %"], abs=2.9)


@EACH_CLASSIFIER
def test_predict_needs_nothing_but_the_name(
    run: Run, shipped: ShippedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    data = EmbeddedFashionMNIST()
    data.setup("test")
    image = next(image for image, target in data.test_set if target == data.class_names.index("Trouser"))  # type: ignore
    Image.fromarray(image[0].numpy()).save("trouser.png")
    assert run("predict", f"--model.weights={shipped.name}", "trouser.png", "--json") == 0
    (predicted,) = json.loads(capsys.readouterr().out)
    assert "Trouser" in json.dumps(predicted)


def test_the_segmenter(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name says which module it takes; the scenes are the same everywhere, and so is the result."""
    name = "fashion-scenes/wavemix-24-3-level-2"
    assert run("test", "--data=FashionScenes", f"--model.weights={name}", "--trainer.default_root_dir=tested") == 0
    (metrics,) = (json.loads(file.read_text())["metrics"] for file in Path("tested").rglob("test.json"))
    assert 100 * metrics["test_miou"] == pytest.approx(shipped_models()[name].results["mIoU %"], abs=0.05)
    data = FashionScenes(scenes=1, val_scenes=1, test_scenes=1)
    data.setup("test")
    image, mask = data.test_set[0]
    Image.fromarray(image[0].numpy()).save("scene.png")
    assert run("predict", f"--model.weights={name}", "scene.png") == 0
    found = torch.from_numpy(np.array(Image.open("masks/scene.png"))).long()
    assert (found == mask).float().mean() > 0.7


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(InputError, match=r"the nearest name is 'fashion-mnist/wavemix-lite-8-5'"):
        pretrained_model("fashion-mnist/wavemix-lite-8-6")


def test_the_card_says_what_came_out() -> None:
    for shipped in shipped_models().values():
        card = Path(shipped.file.parent, "README.md").read_text()
        for metric, value in shipped.results.items():
            assert f"{value} {metric}" in card
