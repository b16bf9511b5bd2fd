"""The verb `export`: files for other engines, run at sizes and batches that the exporter did not see."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wavemix_pl import create_model
from wavemix_pl.data import EmbeddedFashionMNIST
from wavemix_pl.errors import InputError
from wavemix_pl.export import export
from wavemix_pl.export_formats import TARGETS, trace
from wavemix_pl.export_source import read_source
from wavemix_pl.models.published_weights import PUBLISHED
from wavemix_pl.models.wavemix import WaveMix

Run = Callable[..., int]


def settled(model: WaveMix) -> WaveMix:
    """The model in evaluation mode, with statistics of batch norm that are not those of a new one."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval().requires_grad_(False)


def save(
    path: Path, variant: str, task: Any = "classification", size: tuple[int, int] = (32, 32), **fields: Any
) -> str:
    """A checkpoint of a model with random weights."""
    channels = fields.pop("in_channels", 3)
    model = settled(create_model(variant, 4, task=task, in_channels=channels, **fields))
    content = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "hyper_parameters": {"variant": variant, "num_classes": 4, "in_channels": channels, "overrides": fields},
        "preprocessing": {
            "class_names": ["a", "b", "c", "d"],
            "in_channels": channels,
            "image_size": list(size),
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
        },
    }
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The checkpoint of a run of one epoch."""
    from wavemix_pl.cli import main

    run = tmp_path_factory.mktemp("trained") / "run"
    options = ["--data.batch_size=24", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-4/1"]
    options += ["--data=FashionMNIST", f"--data.root={data_root}", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *options, "--trainer.max_epochs=1", f"--trainer.default_root_dir={run}"]) == 0
    return run / "checkpoints" / "best.ckpt"


def difference(file: Path, format: Any, checkpoint: Path | str, batch: int, size: tuple[int, int]) -> float:
    """Of a file's logits from those of the model in PyTorch."""
    model = read_source(str(checkpoint)).model
    images = torch.randn(batch, model.config.in_channels, *size)
    with torch.inference_mode():
        expected: Tensor = model(images)
    found = TARGETS[format].open(file)(images)
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def metadata(file: Path) -> dict[str, Any]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


# -- each format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["onnx", "torch", "openvino"])
def test_file_equals_the_model(
    run: Run, trained: Path, tmp_path: Path, format: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TARGETS[format].libraries:
        pytest.importorskip(name, reason="of the extra 'export', which is not there for every platform")
    file = tmp_path / f"model{TARGETS[format].suffix}"
    assert run("export", trained, "--format", format, "--output", file) == 0
    printed = capsys.readouterr().out
    assert "takes float32 images B x 1 x 2*rows x 2*columns" in printed
    assert "fused" in printed
    for batch, size in ((1, (28, 28)), (5, (20, 44)), (3, (64, 32))):
        assert difference(file, format, trained, batch, size) < 1e-5
    assert sorted(tmp_path.iterdir()) == sorted([file, *TARGETS[format].beside(file)])  # nothing else is left
    facts = json.loads(file.with_name(f"{file.name}.json").read_text()) if format != "onnx" else metadata(file)
    assert facts["model"] == "WaveMix-Lite-4/1"
    names, mean = facts["class_names"], facts["mean"]
    names, mean = (json.loads(names), json.loads(mean)) if format == "onnx" else (names, mean)
    assert names == list(EmbeddedFashionMNIST.class_names)
    assert mean == list(EmbeddedFashionMNIST.mean)


def test_onnx_names_its_dimensions_and_no_file_of_this_machine(trained: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "model.onnx"
    export(str(trained), output=str(file))
    (images,) = onnx.load(file).graph.input
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert b".py" not in file.read_bytes()
    if torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 numbers dimensions")
    assert (images.name, dims) == ("images", ["batch", 1, "2*rows", "2*columns"])


def test_int8_prints_what_it_costs(run: Run, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    few = ("--calibration_images=32", "--test_images=50")
    assert run("export", trained, "--format=onnx-int8", "--output=int8.onnx", "--json", *few) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert accuracy["measured_on"] == "50 test images of EmbeddedFashionMNIST"
    assert accuracy["agreement"] > 0.8
    top1 = accuracy["scores"]["top1"]
    assert top1["PyTorch float32"] == top1["ONNX float32"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in onnx.load("int8.onnx").graph.node}
    assert metadata(Path("int8.onnx"))["precision"] == "int8"
    assert difference(Path("int8.onnx"), "onnx-int8", trained, 2, (40, 36)) < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx"]


def test_int8_without_labels_says_how_often_it_agrees(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from PIL import Image

    checkpoint = save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(16, 16))
    assert run("export", checkpoint, "--format=onnx-int8") == 2
    assert "pass --data=NAME or --calibration=FOLDER" in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    for i in range(5):
        Image.effect_noise((20, 20), 50 + i).convert("RGB").save(tmp_path / "images" / f"{i}.png")
    assert run("export", checkpoint, "--format=onnx-int8", "--calibration=images", "--calibration_images=4") == 0
    printed = capsys.readouterr().out
    assert "calibrated on 4 image files of images" in printed
    assert re.search(r"same class as PyTorch float32 [\d.]+%", printed)
    assert "top1" not in printed
    assert run("export", checkpoint, "--format=onnx-int8", "--data=EmbeddedFashionMNIST", "--overwrite") == 2
    assert "EmbeddedFashionMNIST has class_names" in capsys.readouterr().err


# -- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("WaveMix-8/1 (level 2)", {"task": "segmentation"}),
        ("WaveMix-Lite-8/1", {"task": "segmentation", "stride": 1}),
        ("WaveMix-Lite-16/1", {"stem": "patchify", "patch_size": 2, "wavelet": "db2"}),
        ("WaveMix-Lite-16/1", {"mixer": "maxpool", "upsample": "bilinear"}),
    ],
)
def test_models(tmp_path: Path, variant: str, fields: dict[str, Any]) -> None:
    checkpoint = save(tmp_path / "a.ckpt", variant, size=(32, 48), **fields)
    written = export(checkpoint, "torch")
    multiple = read_source(checkpoint).multiple
    assert written.images == f"B x 3 x {multiple}*rows x {multiple}*columns"
    for batch, size in ((1, (32, 48)), (4, (48, 32)), (2, (64, 64))):
        assert difference(Path(written.files[0]), "torch", checkpoint, batch, size) < 1e-5


@pytest.mark.parametrize(("traced", "seen"), [(32, 104), (104, 32)])
def test_choices_by_size_are_not_traced(traced: int, seen: int) -> None:
    """The convolutions of this stem are merged from 40x40 on."""
    model = settled(create_model("WaveMix-Lite-64/1", 4))
    program = trace(model.fuse(), 3, (traced, traced), 2).program.module()
    images = torch.randn(3, 3, seen, seen)
    torch.testing.assert_close(program(images), model(images), rtol=0, atol=1e-5)


def test_size_that_does_not_divide_is_the_only_one(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(9, 12))
    assert run("export", checkpoint, "--format=torch") == 0
    printed = capsys.readouterr().out
    assert "B x 3 x 9 x 12" in printed
    assert "note: for this size alone: others would be multiples of 2, from 4 on" in printed
    assert difference(tmp_path / "a.pt2", "torch", checkpoint, 3, (9, 12)) < 1e-5


def test_what_fails_is_tried_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_free(model: Any, channels: int, size: Any, multiple: int | None) -> Any:
        if multiple:
            raise RuntimeError("no rule for it\nand more")
        return trace(model, channels, size, multiple)

    monkeypatch.setattr("wavemix_pl.export.trace", not_free)
    checkpoint = save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(8, 8))
    written = export(checkpoint, "torch")
    assert written.images == "B x 3 x 8 x 8"
    assert written.notes == ["the fused form at multiples of 2 cannot be had (no rule for it)"]
    with pytest.raises(InputError, match="the plain form at multiples of 2 cannot be had"):
        export(checkpoint, "torch", dynamic=True, fuse=False, overwrite=True)


def test_published_weights_go_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PUBLISHED["cifar10/wavemix-lite-144-7"]
    model = create_model(entry.config, entry.num_classes)
    file = tmp_path / entry.file
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    monkeypatch.setenv("WAVEMIX_PL_WEIGHTS", str(tmp_path))
    source = read_source(entry.name)
    assert (str(source.file), source.preprocessing) == ("cifar10-wavemix-lite-144-7", {"image_size": [32, 32]})
    torch.testing.assert_close(source.model.state_dict(), model.state_dict(), rtol=0, atol=0)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.ckpt"], "none.ckpt: no such checkpoint"),
        (["a.ckpt", "--format=tflite"], "onnx-int8"),
        (["a.ckpt", "--format=torch", "--output=a.onnx"], "ends in .pt2"),
        (["a.ckpt", "--format=torch", "--output=none/a.pt2"], "make it first"),
        (["a.ckpt", "--format=torch", "--image_size=8"], "is not of the form HxW"),
        (["a.ckpt", "--format=torch", "--image_size=9x8", "--dynamic"], "pass --image_size=10x8"),
        (["a.ckpt", "--format=onnx-int8", "--test_images=0"], "at least 1"),
        (["b.ckpt", "--format=torch"], "no checkpoint of 'wavemix-pl fit'"),
    ],
)
def test_refusals(
    run: Run, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(8, 8))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "b.ckpt")
    assert run("export", *options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt"]


@pytest.mark.parametrize(("format", "name"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, name: str) -> None:
    monkeypatch.setitem(TARGETS, format, replace(TARGETS[format], libraries=(name,)))
    monkeypatch.setitem(sys.modules, name, None)
    checkpoint = save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(8, 8))
    with pytest.raises(InputError, match=r"pip install 'wavemix_pl\[export\]'"):
        export(checkpoint, format)


def test_files_are_there_when_they_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save(tmp_path / "a.ckpt", "WaveMix-Lite-4/1", size=(8, 8))
    export(checkpoint, "torch")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["a.ckpt", "a.pt2", "a.pt2.json"]
    with pytest.raises(InputError, match="is there already: pass --overwrite"):
        export(checkpoint, "torch")
    wrong = replace(TARGETS["torch"], open=lambda path: lambda images: torch.zeros(len(images), 4))
    monkeypatch.setitem(TARGETS, "torch", wrong)
    with pytest.raises(InputError, match="its logits differ from PyTorch's"):
        export(checkpoint, "torch", image_size="8x8", fuse=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
