"""What only a GPU can show: `pytest -m gpu`. All other tests run on the CPU, also where there is a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.callbacks.test_finite_loss import spoil
from tests.conftest import write_cityscapes
from tests.models import give_statistics
from wavemix_pl import create_model
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.losses import FocalLoss
from wavemix_pl.measurement import PeakMemory
from wavemix_pl.models.execution import Execution

Run = Callable[..., int]
SMALL = ("--data=FashionMNIST", "--data.batch_size=24", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-8/2")
MODELS = [
    ("WaveMix-Lite-16/2", {}),
    ("WaveMix-16/2 (level 2)", {}),
    ("WaveMix-16/2 (level 4)", {"stem": "patchify", "patch_size": 2}),
    ("WaveMix-Lite-16/2", {"upsample": "bilinear"}),
    ("WaveMix-Lite-16/2", {"wavelet": "db2"}),
]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("not torch.cuda.is_available()", reason="torch finds no GPU here"),
]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Determinism is a setting of the process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of float32 numbers in float32, not in TF32, so that they can be compared with the CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def gradient(model: Any, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    (found,) = torch.autograd.grad((logits * weights).sum(), images)
    return logits.detach().cpu(), found.cpu()


@pytest.mark.parametrize(("variant", "options"), MODELS)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.usefixtures("exact")
def test_as_on_the_cpu(variant: str, options: dict[str, Any], task: Any) -> None:
    """Every form of a model, with one of the CPU as the oracle; an odd size, so that maps are continued and cropped."""
    torch.manual_seed(0)
    model: Any = create_model(variant, 5, task=task, dropout=0.0, **options)
    give_statistics(model)
    images = torch.randn(3, 3, 37, 50)
    weights = torch.randn_like(model(images))
    for training in (True, False):
        model.cpu().train(training)
        model.execution = "plain"
        state = {name: value.clone() for name, value in model.state_dict().items()}
        expected = gradient(model, images, weights)
        for execution in get_args(Execution) if training else ("plain", "fused"):
            model.load_state_dict(state)
            here: Any = model.cuda().fuse() if execution == "fused" else model.cuda()
            here.execution = execution
            found = gradient(here, images.cuda(), weights.cuda())
            for one, other in zip(found, expected, strict=True):
                assert (one - other).norm() <= 2e-5 * other.norm(), execution


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
def test_trains_and_tests(run: Run, data_root: Path, precision: str) -> None:
    root = (f"--data.root={data_root}", "--trainer.default_root_dir=run", f"--trainer.precision={precision}")
    assert run("fit", *SMALL, *root, "--trainer.max_epochs=2", "--trainer.callbacks+=Resources") == 0
    found = json.loads(Path("run/resources.json").read_text())
    assert found["device"] == torch.cuda.get_device_name()
    assert 0 < found["peak_memory_gb"] < 1  # of tensors; the process alone takes more
    checkpoint = "--ckpt_path=run/checkpoints/best.ckpt"
    scores = {}
    for accelerator in ("gpu", "cpu"):
        assert run("test", "--data=FashionMNIST", *root, checkpoint, f"--trainer.accelerator={accelerator}") == 0
        scores[accelerator] = json.loads(Path("run/test.json").read_text())["metrics"]["test_loss"]
    image = EmbeddedFashionMNIST().load("test").images[0, 0]
    Image.fromarray(image.numpy()).save("0.png")
    assert run("predict", "0.png", checkpoint) == 0
    assert scores["gpu"] == pytest.approx(scores["cpu"], rel=1e-3 if precision == "32-true" else 2e-2)


@pytest.mark.parametrize("options", [(), ("--trainer.precision=16-mixed", "--model.overrides.dropout=0.5")])
def test_goes_on_exactly(run: Run, data_root: Path, options: tuple[str, ...]) -> None:
    """Interrupted after two epochs and gone on with: the weights of a run that was not."""
    common = ("fit", *SMALL, f"--data.root={data_root}", "--trainer.deterministic=true", *options)
    assert run(*common, "--trainer.max_epochs=3", "--trainer.default_root_dir=whole") == 0
    for epochs in (2, 3):
        parts = ("--trainer.default_root_dir=parts", f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
        assert run(*common, *parts) == 0
    whole, parts = (
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        for name in ("whole", "parts")
    )
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_segmentation(run: Run, tmp_path: Path) -> None:
    write_cityscapes(tmp_path / "cityscapes")
    data = ("--data=Cityscapes", f"--data.root={tmp_path}/cityscapes", "--data.image_size=[32,64]")
    data = (*data, "--data.batch_size=2", "--trainer.default_root_dir=run", "--trainer.precision=16-mixed")
    model = ("--model=SegmentationModule", "--model.variant=WaveMix-16/2 (level 2)")
    assert run("fit", *data, *model, "--trainer.max_epochs=2", "--trainer.callbacks+=FocalLossCallback") == 0
    checkpoint = "--ckpt_path=run/checkpoints/best.ckpt"
    assert run("test", *data, "--model=SegmentationModule", checkpoint, "--model.fuse=true") == 0
    assert 0 <= json.loads(Path("run/test.json").read_text())["metrics"]["test_miou"] <= 1


def test_a_loss_that_is_not_finite(run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the GPU it is known a little later, and still the right batch is named."""
    assert run("fit", *SMALL, f"--data.root={data_root}", spoil(batch=1)) == 2
    assert "loss nan in batch 1 of epoch 1" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_focal_loss(dtype: torch.dtype) -> None:
    """Of confident logits, right and wrong ones, and void pixels."""
    logits = (torch.randn(2, 5, 16, 16, device="cuda") * 30).to(dtype).requires_grad_()
    targets = torch.randint(5, (2, 16, 16), device="cuda")
    targets[:, :4] = 255
    loss = FocalLoss(ignore_index=255)(logits, targets)
    expected = FocalLoss(ignore_index=255)(logits.detach().double().cpu(), targets.cpu())
    assert loss.item() == pytest.approx(expected.item(), rel=2e-3)
    (found,) = torch.autograd.grad(loss, logits)
    assert found.isfinite().all()
    assert not found[:, :, :4].any()


def test_lean_training_takes_less_memory() -> None:
    used = {}
    for execution in ("plain", "lean"):
        model: Any = create_model("WaveMix-Lite-64/6", 10).cuda()
        model.execution = execution
        with PeakMemory(torch.device("cuda")) as memory:
            model(torch.randn(16, 3, 64, 64, device="cuda")).sum().backward()
        assert memory.bytes is not None
        used[execution] = memory.bytes
    assert used["lean"] < 0.5 * used["plain"]


def test_benchmark(run: Run) -> None:
    options = ("--forms", "plain", "fused", "--precisions", "float32", "float16", "--memory", "--rounds=1")
    assert run("benchmark", "WaveMix-Lite-16/2", *options, "--image_sizes", "32x32", "--save=found.json") == 0
    found = json.loads(Path("found.json").read_text())
    assert found["machine"]["device"] == torch.cuda.get_device_name()
    assert len(found["results"]) == 4
    assert all(result["memory_gb"] > 0 for result in found["results"])
