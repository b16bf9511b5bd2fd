"""What TensorBoard and W&B get while a run trains, read back from the event files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wavemix_pl.callbacks import OptimizerEvents, OptimizerSwitch, TrainingPictures
from wavemix_pl.callbacks.boards import boards
from wavemix_pl.data import EmbeddedFashionMNIST, FashionScenes
from wavemix_pl.errors import InputError
from wavemix_pl.modules import ClassificationModule, SegmentationModule
from wavemix_pl.pictures import draw_confusion

Run = Callable[..., int]


def events(folder: Path | str) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def texts(found: EventAccumulator, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in found.Tensors(f"{tag}/text_summary")]


def train(logger: Any, callbacks: list[Any], data: Any, model: Any, **options: Any) -> L.Trainer:
    settings: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"enable_checkpointing": False, "limit_train_batches": 1, "limit_val_batches": 3, "max_epochs": 2}
    trainer = L.Trainer(**{**settings, **options}, logger=logger, callbacks=callbacks)
    trainer.fit(model, datamodule=data)
    return trainer


def test_classification(tmp_path: Path) -> None:
    callbacks = [OptimizerEvents(), TrainingPictures(images=4, budget=1), OptimizerSwitch(final_epochs=1)]
    pictures = callbacks[1]
    data, model = EmbeddedFashionMNIST(batch_size=8), ClassificationModule(variant="WaveMix-Lite-4/1", in_channels=1)
    train(TensorBoardLogger(tmp_path, name="", version=""), callbacks, data, model)
    found = events(tmp_path)
    assert {"val_confusion", "val_predictions"} == {*found.Tags()["images"]}
    assert [event.step for event in found.Images("val_confusion")] == [0, 1]
    with Image.open(io.BytesIO(found.Images("val_predictions")[-1].encoded_image_string)) as picture:
        assert picture.size == (600, 186)  # four images side by side
    assert texts(found, "optimizer") == ["AdamW (lr 0.001) from epoch 0 on", "SGD (lr 0.001) from epoch 1 on"]
    (switch,) = found.Scalars("optimizer_switch")
    assert (switch.step, switch.value) == (1, 1)
    # the counts are those of the module's own accuracy
    counts = pictures._counts  # type: ignore[attr-defined]
    assert counts.sum() == 24
    with torch.no_grad():
        batches = [batch for batch, _ in zip(data.val_dataloader(), range(3), strict=False)]
        images = torch.cat([data.normalize(images) for images, _ in batches])
        predicted, targets = model.eval()(images).argmax(1), torch.cat([targets for _, targets in batches])
    expected = torch.zeros(10, 10, dtype=torch.int64)
    for true, guess in zip(targets, predicted, strict=True):
        expected[true, guess] += 1
    assert torch.equal(counts, expected)


class Board(Logger):
    """What Lightning's WandbLogger has: log_image, log_text, log_metrics."""

    name = version = "board"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.images: list[tuple[str, int]] = []
        self.numbers: dict[str, float] = {}

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        assert all(image.mode == "RGB" for image in images)
        self.images.append((key, step))

    def log_text(self, key: str, columns: list[str], data: list[list[str]]) -> None:
        self.images.append((key, int(data[0][columns.index("step")])))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.numbers |= metrics


def test_segmentation_on_another_board() -> None:
    board, model = Board(), SegmentationModule(variant="WaveMix-4/1 (level 2)", num_classes=11, in_channels=1)
    data = FashionScenes(scenes=8, val_scenes=6, test_scenes=1, batch_size=4)
    train(board, [TrainingPictures(budget=1), OptimizerEvents()], data, model, max_epochs=1)
    assert board.images == [("optimizer", 0), ("val_confusion", 0), ("val_predictions", 0)]
    assert model.class_iou is not None
    shown = dict(zip(data.class_names, model.class_iou.tolist(), strict=True))
    named = {name: value for name, value in shown.items() if value == value}
    assert {f"val_iou/{name}": value for name, value in named.items()}.items() <= board.numbers.items()
    assert sum(name.startswith("val_iou/") for name in board.numbers) == len(named)
    masks = torch.cat([masks for _, masks in data.val_dataloader()])
    assert model.confusion is not None
    assert model.confusion.sum(1).tolist() == [int((masks == label).sum()) for label in range(11)]


def test_drawing_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 10 seconds at each look; drawing takes one look, and may take a fifth of the time."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("wavemix_pl.callbacks.training_pictures.perf_counter", lambda: float(next(clock)))
    board = Board()
    data, model = EmbeddedFashionMNIST(batch_size=8), ClassificationModule(variant="WaveMix-Lite-4/1", in_channels=1)
    train(board, [TrainingPictures(budget=0.2)], data, model, max_epochs=12, num_sanity_val_steps=0)
    # The run starts at 0. Epoch 0 is validated at 10, and drawn from 20 to 30; the next ones begin at 40, 50, ..., and
    # of them that at 100 can pay for 20 in all, the next at 130, 140, and that at 150 for 30.
    assert [step for name, step in board.images if name == "val_confusion"] == [0, 7, 10]


def test_nowhere_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = EmbeddedFashionMNIST(batch_size=8), ClassificationModule(variant="WaveMix-Lite-4/1", in_channels=1)
    trainer = train(False, [TrainingPictures(budget=1), OptimizerEvents()], data, model, max_epochs=1)
    assert boards(trainer) == []
    with pytest.raises(InputError, match="budget above 0 up to 1, got 16 and 0"):
        TrainingPictures(budget=0)
    monkeypatch.setattr("wavemix_pl.callbacks.training_pictures.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wavemix_pl\[plots\]"):
        TrainingPictures()


def test_command_line(run: Run) -> None:
    """By default the optimizer is told, and pictures are saved up for; the callback asked for takes their place."""
    options = ("--model.variant=WaveMix-Lite-4/1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1")
    options += ("--trainer.max_epochs=1", "--trainer.default_root_dir=run", "--trainer.enable_progress_bar=false")
    assert run("fit", *options, "--trainer.callbacks+=TrainingPictures", "--trainer.callbacks.budget=1") == 0
    found = events("run")
    assert len(found.Images("val_confusion")) == 1
    assert texts(found, "optimizer") == ["AdamW (lr 0.001) from epoch 0 on"]
    assert run("fit", *options, "--ckpt_path=last", "--trainer.max_epochs=2") == 0
    found = events("run")
    assert len(found.Images("val_confusion")) == 1
    assert len(texts(found, "optimizer")) == 1  # a resumed run does not say it again
    assert "val_iou" not in Path("run/metrics.csv").read_text()


def test_confusion_matrix() -> None:
    figure = draw_confusion(torch.tensor([[3, 1], [0, 0]]), ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25"]
    assert figure.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a", "b"]
    many = draw_confusion(torch.eye(50), [str(i) for i in range(50)])
    assert not many.axes[0].texts
