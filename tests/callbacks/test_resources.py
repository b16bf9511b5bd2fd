"""What a run costs: counted as elsewhere, summed over interruptions, written when it is complete."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from wavemix_pl import create_model

Run = Callable[..., int]
SMALL = ("--data=FashionMNIST", "--data.batch_size=24", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-8/2")
HERE = ("--trainer.default_root_dir=run", "--trainer.callbacks+=Resources")


def report() -> dict[str, float]:
    content: dict[str, float] = json.loads(Path("run/resources.json").read_text())
    return content


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_size_time_and_memory(run: Run, data_root: Path, wavelet: str) -> None:
    options = (*SMALL, f"--model.overrides.wavelet={wavelet}", *HERE)
    assert run("fit", *options, f"--data.root={data_root}", "--trainer.max_epochs=2") == 0
    found = report()
    model = create_model("WaveMix-Lite-8/2", 10, in_channels=1, wavelet=wavelet).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    assert found["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["gflops_per_image"] == pytest.approx(counter.get_total_flops() / 1e9)
    assert (found["epochs"], found["batch_size"], found["devices"], found["precision"]) == (2, 24, 1, "32-true")
    assert found["complete"]
    assert 0 < found["epoch_s"] <= found["wall_s"] < 600
    assert found["train_images_per_s"] == pytest.approx(48 / found["epoch_s"], rel=1)  # medians of two epochs
    assert 0.1 < found["peak_memory_gb"] < 24
    with Path("run/metrics.csv").open() as file:
        logged = [float(row["train_images_per_s"]) for row in csv.DictReader(file) if row["train_images_per_s"]]
    assert len(logged) == 2


def test_in_half_precision(run: Run, data_root: Path) -> None:
    precision = "--trainer.precision=bf16-true"
    assert run("fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=1", *HERE, precision) == 0
    assert report()["precision"] == "bf16-true"


def test_time_of_all_parts_together(run: Run, data_root: Path) -> None:
    command = ("fit", *SMALL, f"--data.root={data_root}", *HERE, "--ckpt_path=last")
    assert run(*command, "--trainer.max_epochs=1") == 0
    first = report()
    checkpoint = Path("run/checkpoints/last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"]["Resources"]["wall_s"] += 1000
    torch.save(content, checkpoint)
    assert run(*command, "--trainer.max_epochs=3") == 0
    found = report()
    assert found["epochs"] == 3
    assert 1000 < found["wall_s"] < 1600
    assert first["wall_s"] < 600


def test_test_report_is_a_file_too(run: Run, data_root: Path) -> None:
    assert run("fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=1", *HERE) == 0
    best = "run/checkpoints/best.ckpt"
    assert run("test", "--data=FashionMNIST", f"--data.root={data_root}", f"--ckpt_path={best}") == 0
    found = json.loads(Path("run/test.json").read_text())
    assert found["images"] == 20
    assert found["generated"] is False
    assert found["checkpoint"] == best
    assert 0 <= found["metrics"]["test_acc1"] <= 1
