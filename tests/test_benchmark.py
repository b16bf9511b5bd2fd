"""The verb `benchmark`: what it measures is there and of one model each; bad input is one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wavemix_pl import create_model
from wavemix_pl.benchmark import benchmark
from wavemix_pl.errors import InputError
from wavemix_pl.measurement import flops, saved_for_backward
from wavemix_pl.workload import TRAINING_FORMS, Case, Workload

Run = Callable[..., int]


def test_every_model_at_every_size() -> None:
    names = ["WaveMix-Lite-8/1", "WaveMix-8/2 (level 2)"]
    results = benchmark(names, "segmentation", image_sizes=["16x32", "32x64"], batch_size=2, num_classes=5, rounds=3)
    assert [(r.model, r.image_size, r.form) for r in results] == [
        (n, s, f) for n in names for s in ("16x32", "32x64") for f in ("plain", "fused")
    ]
    for r in results:
        model = create_model(r.model, num_classes=5, task="segmentation")
        assert r.params_m * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()))
        assert 0 < r.ms_min <= r.ms <= r.ms_max
        assert r.images_per_s == pytest.approx(2000 / r.ms)
        assert r.gflops_per_s is not None
        assert r.gflops_per_s > 0
        assert r.difference is not None
        assert r.difference < 1e-5


def seconds_for(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Workload], float]) -> None:
    """Tells a clock that goes by what runs. What is timed besides models takes a second."""
    clock = {"now": 0.0}
    monkeypatch.setattr("wavemix_pl.measurement.time.perf_counter", lambda: clock["now"])

    def step(workload: Workload) -> None:
        clock["now"] += seconds(workload)

    def peak(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], None], int]:
        return lambda: clock.update(now=clock["now"] + 1.0), 10**9

    monkeypatch.setattr(Workload, "step", step)
    monkeypatch.setattr("wavemix_pl.benchmark.convolution_peak", peak)


def test_values_of_fields_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_for(monkeypatch, lambda workload: workload.params / 1e6 * (2.0 if workload.case.form == "plain" else 1.0))
    names, vary = ["WaveMix-Lite-8/1", "WaveMix-Lite-8/2", "resnet18"], {"mult": [1, 4], "wavelet": ["db1", "db2"]}
    results = benchmark(names, image_sizes=["32x32"], overrides={"ff": 6}, vary=vary, rounds=1)
    of_peer = results.pop()
    assert (of_peer.model, of_peer.varied) == ("resnet18", {})
    assert [(r.model, r.varied["mult"], r.varied["wavelet"], r.form) for r in results] == [
        (name, mult, wavelet, form)
        for name in names[:2]
        for mult in vary["mult"]
        for wavelet in vary["wavelet"]
        for form in ("plain", "fused")
    ]
    for r in results:
        params = sum(p.numel() for p in create_model(r.model, 1000, ff=6, **r.varied).parameters())
        assert r.params_m == pytest.approx(params / 1e6)
        first = next(other for other in results if other.model == r.model)
        assert r.ratio == pytest.approx(first.ms / r.ms)
        assert r.difference is not None
        assert r.difference < 1e-5  # from the plain form of the same values


def test_default_sizes_are_those_of_table_6(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_for(monkeypatch, lambda workload: float(math.prod(workload.case.image_size)))
    monkeypatch.setattr(Workload, "forward", lambda workload: torch.zeros(1))
    results = benchmark(["WaveMix-Lite-8/1"], "segmentation", forms=["plain"], rounds=1)
    assert {r.image_size: r.ms for r in results} == {
        f"{h}x{w}": 1000.0 * h * w for h, w in ((256, 512), (512, 1024), (1024, 2048))
    }


def test_median_spread_ratio_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round does not count; the ratio is to the first form, the share to what a second's convolution does."""
    times = {"plain": iter([9.0, 1.0, 2.0, 4.0]), "fused": iter([9.0, 0.5, 0.5, 0.5])}
    seconds_for(monkeypatch, lambda workload: next(times[workload.case.form]))
    monkeypatch.setattr("wavemix_pl.benchmark.flops", lambda step: 2 * 10**8)
    plain, fused = benchmark(["WaveMix-Lite-8/1"], image_sizes=["16x16"], rounds=3)
    assert (plain.ms_min, plain.ms, plain.ms_max) == (1000, 2000, 4000)
    assert (plain.ratio, fused.ratio) == (1, 4)
    assert (plain.gflops_per_s, fused.gflops_per_s) == (0.1, 0.4)
    assert fused.share_of_peak == pytest.approx(0.4)


def test_precision_and_layout_reach_model_and_images() -> None:
    case = Case("WaveMix-Lite-8/1", precision="bfloat16", image_size=(16, 16))
    workload = Workload(case)
    assert workload._images.dtype == next(workload.model.parameters()).dtype == torch.bfloat16
    assert workload._images.is_contiguous(memory_format=torch.channels_last)
    assert not workload.model.training
    assert workload.forward().dtype == torch.bfloat16


@pytest.mark.parametrize("form", TRAINING_FORMS)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_training_step_of_every_form(form: Any, task: Any) -> None:
    """Compiled ones without a compiler's back end, which another test runs."""
    overrides = {"dropout": 0.0, "stride": 2}
    case = Case("WaveMix-8/2 (level 2)", form, image_size=(32, 32), batch_size=2, training=True, task=task)
    case = replace(case, num_classes=5, overrides=overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda module: None)
        workloads = [Workload(replace(case, form=name)) for name in ("plain", form)]
    for workload in workloads:
        assert workload.model.training
        workload.step()
    logits = [workload.forward() for workload in workloads]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)
    saved = [saved_for_backward(workload.forward, workload.model) for workload in workloads]
    assert 0 < saved[1] <= 1.01 * saved[0]


def test_peers() -> None:
    """Models of timm, and ConvMixer by its paper's name, beside WaveMix; the other forms are WaveMix's."""
    results = benchmark(
        ["WaveMix-Lite-8/1", "ConvMixer-8/1", "mobilenetv3_small_050"],
        image_sizes=["32x32"],
        rounds=1,
        num_classes=5,
        overrides={"stem": "patchify", "in_channels": 1},
    )
    assert [(r.model, r.form) for r in results] == [
        *(("WaveMix-Lite-8/1", form) for form in ("plain", "fused")),
        ("ConvMixer-8/1", "plain"),
        ("mobilenetv3_small_050", "plain"),
    ]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells of memory")
def test_memory_and_largest_batch() -> None:
    """Kept maps are most of what a training step takes: 8 images more, 8 times theirs."""
    (result,) = benchmark(
        ["WaveMix-Lite-32/7"],
        training=True,
        forms=["plain"],
        image_sizes=["64x64"],
        batch_size=8,
        num_classes=10,
        rounds=1,
        memory_budget_gb=1,
        memory=True,
        device="cpu",
    )
    assert result.memory_gb is not None
    assert result.saved_mb is not None
    assert result.largest_batch is not None
    assert 0.9 * result.saved_mb < 1000 * result.memory_gb < 3 * result.saved_mb
    assert 8 / result.memory_gb / 2 < result.largest_batch < 8 / (result.saved_mb / 1000)


def test_saved_bytes() -> None:
    """A convolution keeps its input, GELU too; weights are not counted, nor is a storage twice."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.GELU())
    images = torch.randn(2, 3, 10, 10)
    assert saved_for_backward(lambda: model(images), model) == 4 * (2 * 3 * 100 + 2 * 8 * 100)


@pytest.mark.parametrize("backward", [False, True])
def test_flops(backward: bool) -> None:
    """Two for a multiplication and an addition; the backward pass has twice as many, but for the images' gradient."""
    layer, images = torch.nn.Conv2d(3, 8, 3, bias=False), torch.randn(2, 3, 10, 10)

    def step() -> None:
        out = layer(images)
        if backward:
            out.sum().backward()

    forward = 2 * 2 * 8 * 8 * 8 * 3 * 9
    assert flops(step) == (2 if backward else 1) * forward


def test_table_json_and_file(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("benchmark", "WaveMix-Lite-8/1", "--image_sizes", "16x16", "--rounds=2", "--device=cpu")
    assert run(*options) == 0
    table = capsys.readouterr().out
    assert "WaveMix-Lite-8/1" in table
    assert f"torch {torch.__version__}" in table
    assert "allocator" in table
    file = tmp_path / "result.json"
    assert run(*options, "--json", f"--save={file}", "--forms", "published", "fused", "--overrides.stride=2") == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(file.read_text())
    assert content.keys() == {"machine", "options", "results"}
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert [entry["form"] for entry in content["results"]] == ["published", "fused"]
    assert content["results"][1]["difference"] < 1e-5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["WaveMix-3"], "WaveMix-3"),
        (["WaveMix-Lite-8/1", "--image_sizes", "64"], "HxW"),
        (["WaveMix-Lite-8/1", "--vary.mult=2"], "vary.mult must be a list of values, such as [1,2], got 2"),
        (["WaveMix-Lite-8/1", "--vary.mult=[]"], "vary.mult must be a list of values, such as [1,2], got []"),
        (["WaveMix-Lite-8/1", "--rounds=0"], "at least 1"),
        (["WaveMix-Lite-8/1", "--device=tpu"], "auto, cpu or cuda"),
        (["WaveMix-Lite-8/1", "--forms", "lean"], "in inference"),
        (["WaveMix-Lite-8/1", "--training", "--forms", "fused"], "in training"),
        (["WaveMix-Lite-8/1", "--precisions", "float8"], "float32, bfloat16"),
        (["WaveMix-Lite-8/1", "--forms", "published", "--precisions", "bfloat16"], "float32 only"),
        (["WaveMix-Lite-8/1", "--overrides.colour=3"], "colour"),
        (["WaveMix-Lite-8/1", "--memory_budget_gb=0"], "above 0"),
        (["WaveMix-Lite-8/1", "--save=no/such/folder.json"], "no folder"),
        (["resnet55"], "resnet50"),
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
        benchmark(["WaveMix-Lite-8/1"], device="cuda")


def test_data_speed(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data_root: Path
) -> None:
    monkeypatch.setattr("wavemix_pl.benchmark_data._PHOTOGRAPHS", 32)
    options = ("benchmark", "data", f"--root={data_root}", "--batch_size=16", "--rounds=1")
    assert run(*options, "--json") == 0
    results = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert results.keys() == {"EmbeddedFashionMNIST", "FashionMNIST", "ImageFolderData", "ShardData"}
    assert results["FashionMNIST"]["images"] == 80
    for entry in results.values():
        assert entry["ratio"] == pytest.approx(entry["ours"] / entry["torchvision"])
    assert run(*options) == 0
    assert "ImageFolderData" in capsys.readouterr().out
    assert run("benchmark", "data", "--rounds=0") == 2
