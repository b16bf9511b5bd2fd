"""The LightningModules: one shared step around the models of `wavemix_pl.models`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, cast, get_args

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from wavemix_pl.models.wavemix import create_model

Batch = tuple[Tensor, Tensor]
Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class ImageModule(L.LightningModule):
    """What every task shares: the model, the step, the metrics of three stages, the optimizer.

    Images (B, C, H, W) float32, normalised, come with integer targets. Each stage logs `{stage}_loss`, the mean over
    images, and the task's own metrics. The attribute `loss` is the seam for callbacks that replace the loss.

    Args:
        variant: The model in the paper's notation.
        num_classes: K; the command line takes it from the data.
        in_channels: Channels of the images; the command line takes it from the data.
        overrides: Further fields of `WaveMixConfig`, such as {"stem": "patchify", "dropout": 0.0}.
        label_smoothing: Of the cross-entropy.
        optimizer: Makes the optimizer from the parameters. The default is the paper's (Section 4.2).
        lr_scheduler: Makes a learning rate scheduler from the optimizer.
        lr_interval: When the scheduler steps: after each "epoch" or each "step".

    Attributes:
        preprocessing: What the training data did to its images and the names of its classes, in plain values; saved
            in checkpoints so that `wavemix-pl predict` can do the same. None before training.
    """

    task: ClassVar[Literal["classification", "segmentation"]]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        variant: str = "WaveMix-Lite-8/5",
        num_classes: int = 10,
        in_channels: int = 3,
        overrides: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.model = create_model(
            variant, num_classes, task=self.task, **{"in_channels": in_channels, **(overrides or {})}
        )
        self.loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        # The prefix keeps the keys apart from attributes of ModuleDict, such as its method `train`.
        self.mean_loss = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in STAGES})
        self.scores = nn.ModuleDict({f"{stage}_scores": self._scores(stage) for stage in STAGES})
        self.preprocessing: dict[str, Any] | None = None
        self._optimizer, self._lr_scheduler, self._lr_interval = optimizer, lr_scheduler, lr_interval

    @abstractmethod
    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        """The task's metrics of logits and targets, by their names without the stage."""

    def _scores(self, stage: Stage) -> MetricCollection:
        # compute_groups would merge metrics whose first batch happens to give equal counts
        return MetricCollection(self.make_scores(self.hparams["num_classes"]), prefix=f"{stage}_", compute_groups=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def _step(self, stage: Stage, batch: Batch) -> Tensor:
        images, targets = batch
        logits = self(images)
        loss: Tensor = self.loss(logits, targets)
        mean_loss = cast(MeanMetric, self.mean_loss[f"{stage}_loss"])
        scores = cast(MetricCollection, self.scores[f"{stage}_scores"])
        mean_loss.update(loss.detach(), weight=len(images))
        scores.update(logits.detach(), targets)
        how: dict[str, Any] = {
            "on_step": False,
            "on_epoch": True,
            "prog_bar": stage != "test",
            "batch_size": len(images),
        }
        self.log(f"{stage}_loss", mean_loss, **how)
        self.log_dict(scores, **how)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities, float32, in the shape of the logits."""
        logits: Tensor = self(batch[0])
        return logits.float().softmax(dim=1)

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        entry: dict[str, Any] = {"scheduler": scheduler, "interval": self._lr_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            entry["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": entry}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = getattr(self._trainer, "datamodule", None)
        self.preprocessing = getattr(datamodule, "preprocessing", self.preprocessing)
        checkpoint["preprocessing"] = self.preprocessing

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.preprocessing = checkpoint.get("preprocessing")


class ClassificationModule(ImageModule):
    """Image classification: cross-entropy, top-1 and top-5 accuracy as fractions of all images."""

    task = "classification"
    monitor = "val_acc1"

    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        return {f"acc{k}": MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro") for k in (1, 5)}
