"""Same seed, same run: twice the same command, or the config that a run has saved, end with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import write_cityscapes
from tests.crashes import RUN, outcome

Run = Callable[..., int]
CLASSIFIER = (
    *("--data=FashionMNIST", "--data.batch_size=12", "--data.augment=trivial", "--data.regularization.mixup=0.5"),
    *("--model.optimizer=AdamW", "--model.optimizer.lr=0.01", "--trainer.callbacks+=OptimizerSwitch"),
    *("--trainer.callbacks.final_epochs=1", "--trainer.max_epochs=2", "--seed_everything=3"),
)
SEGMENTER = (
    *("--model=SegmentationModule", "--data=Cityscapes", "--data.root=../cityscapes", "--data.image_size=[32,64]"),
    *("--data.batch_size=2", "--data.augment=flip", "--trainer.callbacks+=FocalLossCallback", "--trainer.max_epochs=1"),
)
CASES = {
    "classifier": (*CLASSIFIER, "--model.variant=WaveMix-8/2 (level 2)", "--data.num_workers=2"),
    "lite": (*CLASSIFIER, "--model.variant=WaveMix-Lite-8/2"),
    "segmenter": (*SEGMENTER, "--model.variant=WaveMix-8/1 (level 2)"),
    "patchify": (*SEGMENTER, "--model.variant=WaveMix-8/1 (level 2)", "--model.overrides.stem=patchify"),
    "bilinear": (*CLASSIFIER, "--model.variant=WaveMix-8/1 (level 2)", "--model.overrides.upsample=bilinear"),
    "idwt": (*CLASSIFIER, "--model.variant=WaveMix-8/1 (level 2)", "--model.overrides.upsample=idwt"),
    "db2": (*CLASSIFIER, "--model.variant=WaveMix-8/1 (level 2)", "--model.overrides.wavelet=db2"),
}


@pytest.mark.parametrize("case", ["classifier", *(pytest.param(case, marks=pytest.mark.slow) for case in [*CASES][1:])])
def test_twice(case: str, run: Run, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic algorithms too, with which torch refuses operations that have none."""
    options = [*CASES[case], "--trainer.deterministic=true", f"--trainer.default_root_dir={RUN}"]
    if "--data=FashionMNIST" in options:
        options.append(f"--data.root={data_root}")
    else:
        write_cityscapes(tmp_path / "cityscapes")
    commands = {"first": options, "second": options, "config": [f"--config=../first/{RUN}/config.yaml"]}
    for folder, arguments in commands.items():
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
        torch.rand(1)  # another state of the generator for each
        assert run("fit", *arguments) == 0
    first = outcome(tmp_path / "first")
    assert outcome(tmp_path / "second") == first
    assert outcome(tmp_path / "config") == first
