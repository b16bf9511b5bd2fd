"""The verb `benchmark`: what it measures is there and of one model each; bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wavemix_pl import create_model
from wavemix_pl.benchmark import throughput
from wavemix_pl.errors import InputError

Run = Callable[..., int]


def test_every_model_at_every_size() -> None:
    names = ["WaveMix-Lite-8/1", "WaveMix-8/2 (level 2)"]
    results = throughput(names, "segmentation", ["16x32", "32x64"], batch_size=2, num_classes=5, rounds=3)
    assert [(r.model, r.image_size) for r in results] == [(n, s) for n in names for s in ("16x32", "32x64")]
    for r in results:
        model = create_model(r.model, num_classes=5, task="segmentation")
        assert r.params_m * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()))
        assert 0 < r.ms_min <= r.ms <= r.ms_max
        assert r.images_per_s == pytest.approx(2000 / r.ms)


def test_default_sizes_are_those_of_table_6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavemix_pl.benchmark._time", lambda model, images: float(images.numel()))
    results = throughput(["WaveMix-Lite-8/1"], "segmentation", rounds=1)
    assert {r.image_size: r.ms for r in results} == {
        f"{h}x{w}": 3000.0 * h * w for h, w in ((256, 512), (512, 1024), (1024, 2048))
    }


def test_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr("wavemix_pl.benchmark._time", lambda model, images: next(seconds))
    (result,) = throughput(["WaveMix-Lite-8/1"], image_sizes=["16x16"], rounds=3)
    assert (result.ms_min, result.ms, result.ms_max) == (1000, 2000, 4000)


def test_precision_and_layout_reach_model_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(model: torch.nn.Module, images: torch.Tensor) -> float:
        assert images.dtype == next(model.parameters()).dtype == torch.bfloat16
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert not model.training
        return 1.0

    monkeypatch.setattr("wavemix_pl.benchmark._time", check)
    throughput(["WaveMix-Lite-8/1"], image_sizes=["16x16"], precision="bfloat16", rounds=1)


def test_table_and_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("benchmark", "WaveMix-Lite-8/1", "--image_sizes", "16x16", "--rounds=2", "--device=cpu")
    assert run(*options) == 0
    table = capsys.readouterr().out
    assert "WaveMix-Lite-8/1" in table
    assert f"torch {torch.__version__}" in table
    assert run(*options, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content.keys() == {"machine", "options", "results"}
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert content["results"][0]["image_size"] == "16x16"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["WaveMix-3"], "WaveMix-3"),
        (["WaveMix-Lite-8/1", "--image_sizes", "64"], "HxW"),
        (["WaveMix-Lite-8/1", "--rounds=0"], "at least 1"),
        (["WaveMix-Lite-8/1", "--device=tpu"], "auto, cpu or cuda"),
        ([], "models"),
    ],
)
def test_bad_input(run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run("benchmark", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU"):
        throughput(["WaveMix-Lite-8/1"], device="cuda")


def test_data_speed(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data_root: Path
) -> None:
    monkeypatch.setattr("wavemix_pl.benchmark_data._PHOTOGRAPHS", 32)
    options = ("benchmark", "data", f"--root={data_root}", "--batch_size=16", "--rounds=1")
    assert run(*options, "--json") == 0
    results = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert results.keys() == {"EmbeddedFashionMNIST", "FashionMNIST", "ImageFolderData"}
    assert results["FashionMNIST"]["images"] == 80
    for entry in results.values():
        assert entry["ratio"] == pytest.approx(entry["ours"] / entry["torchvision"])
    assert run(*options) == 0
    assert "ImageFolderData" in capsys.readouterr().out
    assert run("benchmark", "data", "--rounds=0") == 2
