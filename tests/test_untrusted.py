"""Files from strangers run no code, write nowhere, and are refused in one line.

Archives: tests/data/test_cifar.py; weights: tests/models/test_weights.py; test and predict: tests/test_cli.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wavemix_pl.data.galaxy10 import HDF5Images
from wavemix_pl.errors import InputError

Run = Callable[..., int]
POPEN = "class_path: subprocess.Popen, init_args: {args: [touch, ran]}"
CONFIGS = {
    "tag": 'trainer: {max_epochs: !!python/object/apply:os.system ["touch ran"]}',
    "tag of an object": "seed_everything: !!python/object/new:subprocess.Popen [[touch, ran]]",
    "callback": f"trainer: {{callbacks: [{{{POPEN}}}]}}",
    "logger": f"trainer: {{logger: {{{POPEN}}}}}",
    "model": f"model: {{{POPEN}}}",
    "data": f"data: {{{POPEN}}}",
    "optimizer": "model: {class_path: ClassificationModule, init_args: {optimizer: os.system}}",
    "scheduler": f"model: {{class_path: ClassificationModule, init_args: {{lr_scheduler: {{{POPEN}}}}}}}",
}


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("kind", ["tag", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*CONFIGS][1:])])
def test_config(kind: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(CONFIGS[kind])
    assert run("fit", "--config=config.yaml", "--trainer.fast_dev_run=1") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("wavemix-pl: error: ")
    assert [path.name for path in Path().iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("asked", ["last", "run/checkpoints/last.ckpt"])
def test_checkpoint_that_a_run_would_go_on_from(
    asked: str, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run/checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {}, "hyper_parameters": Evil()}, "run/checkpoints/last.ckpt")
    data = ("--data=FashionMNIST", f"--data.root={data_root}", "--trainer.default_root_dir=run")
    assert run("fit", *data, f"--ckpt_path={asked}") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "run/checkpoints/last.ckpt: not loaded, since loading it would run code (posix.system)" in said
    assert not Path("ran").exists()
    assert [str(path) for path in Path("run").rglob("*.*")] == ["run/checkpoints/last.ckpt"]


def _group(file: Any) -> None:
    file.create_group("images")
    file["ans"] = np.zeros(3)


def _outside(file: Any) -> None:
    import h5py

    file["images"], file["ans"] = h5py.ExternalLink("elsewhere.h5", "/images"), np.zeros(3)


def _text(file: Any) -> None:
    file["images"], file["ans"] = np.zeros((3, 4, 4, 3), np.uint8), np.array([b"cat", b"dog", b"cow"])


def _fractions(file: Any) -> None:
    file["images"], file["ans"] = np.zeros((3, 4, 4, 3), np.float32), np.zeros(3)


def _nothing(file: Any) -> None:
    file["images"], file["ans"] = np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0)


def _references(file: Any) -> None:
    import h5py

    file["images"] = np.zeros((3, 4, 4, 3), np.uint8)
    file.create_dataset("ans", (3,), dtype=h5py.ref_dtype)


@pytest.mark.parametrize("content", [_group, _outside, _text, _fractions, _nothing, _references])
def test_hdf5(content: Callable[[Any], None], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        content(file)
    with pytest.raises(InputError, match=r"x\.h5: "):
        HDF5Images(tmp_path / "x.h5", 10)
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
