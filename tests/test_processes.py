"""Several processes: they count together what one counts, each image once; what launches them changes nothing."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn

from tests.conftest import write_cityscapes
from tests.crashes import RUN, SMALL, fit, outcome
from wavemix_pl import create_model

ROOT = Path(__file__).parents[1]
FOUR = ("--trainer.devices=4", "--trainer.strategy=ddp_fork")
CHECKPOINT = f"--ckpt_path={RUN}/checkpoints/last.ckpt"


class Seen(Callback):
    """Writes down what images each process is given in training."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with Path(f"seen-{trainer.global_rank}").open("a") as file:
            for image in batch[0]:
                digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
                print(trainer.current_epoch, batch_idx, digest, file=file)


def command(
    folder: Path, *arguments: str, launcher: tuple[str, ...] = (), code: int = 0
) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": "0"}
    ended = subprocess.run(
        [sys.executable, *launcher, "-m", "wavemix_pl", *arguments],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 280},  # type: ignore[call-overload]
    )
    assert ended.returncode == code, ended.stderr
    return ended  # type: ignore[no-any-return]


def metrics(printed: str) -> dict[str, float]:
    found = re.findall(r"\b((?:val|test)_(?:loss|acc1|acc5|miou|pixel_accuracy))\D+?(-?\d+\.\d+)", printed)
    return {name: float(value) for name, value in found}


@pytest.mark.slow
def test_four_processes_validate_as_one_does(tmp_path: Path, data_root: Path) -> None:
    """13 images on four processes, in batches of three: shares of 4, 3, 3 and 3."""
    data = ("--data=FashionMNIST", f"--data.root={data_root}", "--data.val_fraction=0.1625", "--data.batch_size=12")
    options = ("--model.variant=WaveMix-Lite-4/1", "--model.optimizer=AdamW", "--model.optimizer.lr=0.02")
    options = (*options, "--model.overrides.dropout=0", "--trainer.max_epochs=30")
    command(tmp_path, "fit", *data, *options, f"--trainer.default_root_dir={RUN}")
    for verb, names in (("validate", {"val_loss", "val_acc1", "val_acc5"}), ("test", {"test_loss", "test_acc1"})):
        one = metrics(command(tmp_path, verb, *data, CHECKPOINT).stdout)
        four = metrics(command(tmp_path, verb, *data, CHECKPOINT, *FOUR).stdout)
        assert names <= one.keys()
        assert four == pytest.approx(one, abs=1e-4)
        assert one[f"{verb[:3] if verb == 'validate' else verb}_acc1"] > 0.11  # not what any model has


@pytest.mark.slow
def test_four_processes_count_the_pixels_of_one(tmp_path: Path) -> None:
    """Six images on four processes: two of them have one more; three images are too few."""
    write_cityscapes(tmp_path / "cityscapes")
    data = ("--data=Cityscapes", "--data.root=cityscapes", "--data.image_size=[32,64]", "--data.batch_size=4")
    options = ("--model=SegmentationModule", "--model.variant=WaveMix-8/1 (level 2)", "--trainer.max_epochs=1")
    command(tmp_path, "fit", *data, *options, f"--trainer.default_root_dir={RUN}")
    refused = command(tmp_path, "test", *data, CHECKPOINT, *FOUR, code=2)
    assert "error: 4 devices need as many images, here are 3: lower" in refused.stderr.splitlines()[-1]
    for kind in ("leftImg8bit", "gtFine"):  # the training images in the test images' place
        (tmp_path / "cityscapes" / kind / "val").rename(tmp_path / kind)
        (tmp_path / "cityscapes" / kind / "train").rename(tmp_path / "cityscapes" / kind / "val")
    one = metrics(command(tmp_path, "test", *data, CHECKPOINT).stdout)
    four = metrics(command(tmp_path, "test", *data, CHECKPOINT, *FOUR).stdout)
    assert {"test_loss", "test_miou", "test_pixel_accuracy"} <= one.keys()
    assert four == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
def test_four_processes_train_on_each_image_once(tmp_path: Path, data_root: Path) -> None:
    """67 images: 16 for each process, five batches of three; in the order that one process would see them."""
    options = ("--data.val_fraction=0.1625", "--trainer.max_epochs=2", f"--trainer.callbacks=[{__name__}.Seen]")
    assert fit(tmp_path / "four", data_root, (*FOUR, *options))
    assert fit(tmp_path / "one", data_root, options)
    seen = [line.split() for rank in range(4) for line in (tmp_path / f"four/seen-{rank}").read_text().splitlines()]
    whole = [line.split() for line in (tmp_path / "one/seen-0").read_text().splitlines()]
    for epoch in "01":
        images = [image for number, _, image in seen if number == epoch]
        assert len(images) == len({*images}) == 60
        for batch in "01234":
            step, of_one = ({image for *at, image in lines if at == [epoch, batch]} for lines in (seen, whole))
            assert step == of_one


@pytest.mark.slow
def test_torchrun(tmp_path: Path, data_root: Path) -> None:
    """Processes that torchrun starts end as those that Lightning starts, bit for bit."""
    options = ("--trainer.devices=2", "--data.val_fraction=0.1625", "--model.overrides.dropout=0.5")
    assert fit(tmp_path / "forked", data_root, (*options, "--trainer.strategy=ddp_fork"))
    (tmp_path / "launched").mkdir()
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    arguments = ("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL, *options, "--trainer.strategy=ddp")
    command(tmp_path / "launched", *arguments, launcher=launcher)
    assert outcome(tmp_path / "launched") == outcome(tmp_path / "forked")


# -- FSDP and SyncBatchNorm, which Lightning and torch have on GPUs only: what they do to the models ------------------


def _train(rank: int, folder: str, sharded: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{sharded}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model("WaveMix-8/2 (level 2)", 4, dropout=0.0)
    wrapped: nn.Module = model
    if sharded:
        mesh = init_device_mesh("cpu", (2,))
        for part in (*model.blocks, model):
            fully_shard(part, mesh=mesh)
        assert sum(p.to_local().numel() for p in model.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())  # type: ignore[operator]
    else:
        with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
            nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(model))(torch.zeros(2, 3, 16, 16))
        wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(3):
        images, targets = torch.randn(4, 3, 16, 16, generator=generator), torch.arange(4)
        optimizer.zero_grad()
        F.cross_entropy(wrapped(images), targets).backward()
        optimizer.step()
    state = {name: p.full_tensor() if sharded else p for name, p in model.named_parameters()}  # type: ignore[operator]
    if rank == 0:
        torch.save({name: value.detach() for name, value in state.items()}, f"{folder}/{sharded}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_parameters_train_like_whole_ones(tmp_path: Path) -> None:
    for sharded in (False, True):
        torch.multiprocessing.spawn(_train, (str(tmp_path), sharded), nprocs=2)
    whole, sharded_ones = (torch.load(tmp_path / f"{kind}.pt", weights_only=True) for kind in (False, True))
    torch.testing.assert_close(sharded_ones, whole)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_sync_batchnorm_takes_the_place_of_every_batch_norm(task: Any) -> None:
    """Here the conversion alone: torch computes with it on GPUs only. The weights keep their names."""
    model = create_model("WaveMix-8/2 (level 2)", 4, task, dropout=0.0)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == norms > 2
    assert not any(isinstance(module, nn.BatchNorm2d) for module in converted.modules())
    assert converted.state_dict().keys() == create_model("WaveMix-8/2 (level 2)", 4, task).state_dict().keys()
    with torch.no_grad():  # evaluation needs no messages
        images = torch.randn(2, 3, 16, 16)
        expected = create_model("WaveMix-8/2 (level 2)", 4, task, dropout=0.0)
        expected.load_state_dict(converted.state_dict())
        torch.testing.assert_close(converted.eval()(images), expected.eval()(images))


# -- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "queued"), [(143, True), (0, False), (2, False)])
def test_the_job_is_queued_again(code: int, queued: bool, tmp_path: Path) -> None:
    """The script in the recipe's header, with stand-ins for SLURM's commands."""
    header = (ROOT / "experiments" / "recipes" / "many-nodes.yaml").read_text()
    lines = [line.removeprefix("#   ") for line in header.splitlines()]
    script = lines[lines.index("#!/bin/bash") : lines.index("#", lines.index("#!/bin/bash"))]
    (tmp_path / "job").write_text("\n".join(script).replace("COMMAND", f"bash -c 'exit {code}'"))
    for name, does in {"srun": '"$@"', "scontrol": 'echo "$@" > queued'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    subprocess.run(["bash", "job"], cwd=tmp_path, env=environment, check=False)
    assert (tmp_path / "queued").exists() == queued
    if queued:
        assert (tmp_path / "queued").read_text() == "requeue 17\n"
