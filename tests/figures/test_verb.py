"""The verb `figures`, and the pictures that need no more than a drawing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import pywt
import torch
from PIL import Image

from wavemix_pl.data import EmbeddedFashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.figures import draw_segmentation, photograph, subbands
from wavemix_pl.figures.overview import middle, pyramid
from wavemix_pl.figures.verb import FIGURES

Run = Callable[..., int]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(pywt.data.camera()[::8, ::4]).save(path)  # 64 x 128
    return path


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]


def test_subbands_are_those_of_pywavelets() -> None:
    image = photograph()
    pyramid = subbands(image, 2)
    coarse, second, first = pywt.wavedec2(image[0].double().numpy(), "haar", level=2)
    for ours, theirs in ((pyramid[0], first), (pyramid[1], second)):
        for name, band in zip(("LH", "HL", "HH"), theirs, strict=True):
            assert np.allclose(ours[name].numpy(), band, atol=1e-5)
    assert np.allclose(pyramid[1]["LL"].numpy(), coarse, atol=1e-5)
    with pytest.raises(InputError, match=r"5x40 is too small for 3 levels: each side needs 8"):
        subbands(torch.rand(1, 5, 40), 3)


def test_pyramid_has_the_subbands_in_their_places() -> None:
    image = middle(photograph())
    found = pyramid(image, 2)
    coarse, second, first = pywt.wavedec2(image[0].double().numpy(), "haar", level=2)
    assert found.shape == image.shape[-2:] == (192, 192)
    assert np.allclose(found[:48, :48], coarse / 4, atol=1e-5)
    for side, (horizontal, vertical, diagonal) in ((48, second), (96, first)):
        places = (found[side : 2 * side, :side], found[:side, side : 2 * side], found[side : 2 * side, side : 2 * side])
        for place, band in zip(places, (horizontal, vertical, diagonal), strict=True):
            assert np.corrcoef(place.numpy().ravel(), band.ravel())[0, 1] > 0.95  # the largest are cut off
    assert torch.equal(pyramid(torch.ones(1, 16, 16), 2)[4:], torch.full((12, 16), 0.5))


def test_overview(run: Run, segmenter: Path) -> None:
    given = ("--ckpt_path", segmenter, "--data=Cityscapes")  # for other figures
    assert run("figures", "overview", *given, "--output", "out", "--format", "svg") == 0
    found = texts(Path("out/overview.svg"))
    assert {"WaveMix-Lite, 1 level: 20 px", "WaveMix, 4 levels: 132 px", "WaveMix-Lite-8/5, 7,156 parameters,"} <= {
        *found
    }
    assert sum(text in EmbeddedFashionMNIST.class_names for text in found) == 16


def test_files_of_a_photograph(run: Run, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("figures", "subbands", "energy", "--image", photo, "--output", "out") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{name}: out/{name}.png, out/{name}.svg" for name in ("subbands", "energy")]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        f"{name}.{suffix}" for name in ("subbands", "energy") for suffix in ("png", "svg")
    )
    assert "photograph, 64x128" in texts(Path("out/subbands.svg"))  # text stays text
    assert "largest coefficients kept, %" in texts(Path("out/energy.svg"))
    with Image.open("out/subbands.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("L").getcolors() or [None] * 257) > 50


def test_same_figure_same_file(run: Run, photo: Path) -> None:
    for folder in ("one", "two"):
        assert run("figures", "energy", "--image", photo, "--output", folder, "--format", "svg") == 0
    assert Path("one/energy.svg").read_bytes() == Path("two/energy.svg").read_bytes()


def test_without_names_what_lacks_something_is_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch, photo: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum", reason="comes with the extra [figures]")
    for other in ("receptive-field", "accuracy", "overview", "confusion"):
        monkeypatch.delitem(FIGURES, other)
    assert run("figures", "--image", photo, "--format", "svg") == 0
    *drawn, curves = capsys.readouterr().out.splitlines()
    assert curves.startswith("left out: learning-curves: needs the checkpoint of a run: pass --ckpt_path=")
    names = ["segmentation", "occlusion", "subbands", "energy"]  # the models are those that come with the package
    assert [line.partition(":")[0] for line in drawn] == names
    assert {path.name for path in Path("runs/figures").iterdir()} == {f"{name}.svg" for name in names}
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert run("figures", "--image", photo, "--format", "svg", "--ckpt_path", classifier) == 0
    segmentation, occlusion, *_ = capsys.readouterr().out.splitlines()
    assert "best.ckpt holds a classifier" in segmentation
    assert "pip install 'wavemix_pl[figures]'" in occlusion
    assert "learned maps, block 2 of 2" in texts(Path("runs/figures/energy.svg"))


def test_occlusion_of_a_checkpoint(run: Run, classifier: Path) -> None:
    pytest.importorskip("captum", reason="comes with the extra [figures]")
    assert run("figures", "occlusion", "--ckpt_path", classifier, "--output", "out", "--format", "svg") == 0
    assert any(text.startswith("(true: ") for text in texts(Path("out/occlusion.svg")))


def test_segmentation_of_a_checkpoint(run: Run, segmenter: Path) -> None:
    assert run("figures", "segmentation", "--ckpt_path", segmenter, "--output", "out", "--format", "png", "svg") == 0
    found = texts(Path("out/segmentation.svg"))
    assert {"image", "truth", "prediction", "background", "void, not counted"} <= {*found}
    assert sum("of the pixels right" in text for text in found) == 4


def test_segmentation_is_drawn_in_the_colors_of_the_classes() -> None:
    truth = torch.tensor([[[0, 1], [255, 1]]])
    predicted = torch.tensor([[[0, 1], [1, 0]]])
    figure = draw_segmentation(torch.rand(1, 3, 2, 2), truth, predicted, ["sky", "road"], [(0, 0, 9), (8, 7, 6)])
    masks = [axes.images[0].get_array() for axes in figure.axes[1:]]
    assert np.array_equal(masks[0][..., 0], [[0, 8], [255, 8]])
    assert np.array_equal(masks[1][..., 2], [[9, 6], [6, 9]])
    assert figure.axes[2].texts[0].get_text() == "67% of the pixels right"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "road", "void, not counted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["occlussion"], "unknown figure 'occlussion', did you mean 'occlusion'?"),
        (["segmentation", "--data", "Cityscapes"], "needs a segmenter trained on Cityscapes: pass --ckpt_path="),
        (["segmentation", "--ckpt_path", "CLASSIFIER"], "holds a classifier"),
        (["energy", "--ckpt_path", "CLASSIFIER", "--data", "CIFAR11"], "unknown data set 'CIFAR11'"),
        (["energy", "--ckpt_path", "CLASSIFIER", "--data", "FashionScenes"], "choose the data of the training"),
        (["subbands", "--ckpt_path", "missing.ckpt"], "missing.ckpt: no such checkpoint"),
        (["subbands", "--ckpt_path", "CLASSIFIER", "--weights", "x"], "give one of them"),
        (["subbands", "--image", "tiny.png"], "tiny.png: image 4x4 is too small for 3 levels"),
        (["subbands", "--image", "none.png"], "none.png"),
        (["subbands", "--format", "pdf"], "format must be one or more of png, svg, got pdf"),
        (["subbands", "--output", "tiny.png"], "is a file: name a folder"),
    ],
)
def test_what_cannot_be_used(
    run: Run, classifier: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (4, 4)).save("tiny.png")
    assert run("figures", *(classifier if argument == "CLASSIFIER" else argument for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("runs").exists()


def test_published_weights_by_their_file_need_the_data(
    run: Run, classifier: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(classifier, weights_only=True)
    del content["preprocessing"]
    torch.save(content, tmp_path / "bare.ckpt")
    given = ("--ckpt_path", "bare.ckpt", "--format", "svg", "--image", photo)
    assert run("figures", "energy", *given) == 2
    assert "pass --data=NAME --root=FOLDER" in capsys.readouterr().err
    assert run("figures", "energy", *given, "--data=EmbeddedFashionMNIST") == 0


@pytest.mark.slow
def test_all_that_need_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm", reason="comes with the extra [figures]")
    assert run("figures", "--output", "out") == 0
    printed = capsys.readouterr().out
    assert "receptive-field: out/receptive-field.png, out/receptive-field.svg" in printed
    assert "out/accuracy-table-11-cifar-10.png" in printed
    found = texts(Path("out/receptive-field.svg"))
    assert {"ResNet-18", "1 block", "8 blocks", "256 px"} <= {*found}
    assert Path("out/receptive-field.svg").stat().st_size < 500_000
