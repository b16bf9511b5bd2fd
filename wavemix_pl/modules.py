"""The LightningModules: one shared step around the models of `wavemix_pl.models`."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from typing import Any, ClassVar, Literal, cast, get_args

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from wavemix_pl.errors import InputError
from wavemix_pl.inference import PLAIN, TestTime, segment
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.wavemix import WaveMix, WaveMixClassifier, WaveMixSegmenter
from wavemix_pl.models.weights import load_checkpoint, transfer_backbone
from wavemix_pl.schedules import WarmupCosine
from wavemix_pl.scores import PublishedScore, SegmentationScores

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
        execution: How WaveMix' blocks run in training, at equal numbers: see `wavemix_pl.models.execution`. "auto" is
            "fast" on a CPU and "plain" elsewhere, where "fast" has not been measured.
        compile: Whether training compiles the model with torch.compile. It goes with plain execution only.
        fuse: Whether `test` and `predict` make a WaveMix faster with `model.fuse()`, at logits equal to rounding.
        backbone: Checkpoint of a classifier or segmenter, ours or the authors', from which a WaveMix takes stem and
            blocks when training begins; the head stays new. A resumed run has its own already.

    Attributes:
        preprocessing: What the training data did to its images and the names of its classes, in plain values; saved
            in checkpoints so that `wavemix-pl predict` can do the same. None before training.
    """

    task: ClassVar[Literal["classification", "segmentation"]]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    # arguments that another run may choose anew
    not_saved: ClassVar[tuple[str, ...]] = ("optimizer", "lr_scheduler", "execution", "compile", "fuse", "backbone")

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
        execution: Literal["auto", "plain", "fast", "lean", "checkpointed"] = "auto",
        compile: bool = False,
        fuse: bool = False,
        backbone: str | None = None,
    ) -> None:
        super().__init__()
        if overrides and "in_channels" in overrides:
            raise InputError("in_channels is told by the data: leave it out of overrides")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if compile and execution not in ("auto", "plain"):
            raise InputError(f"compile goes with plain execution only, not with {execution!r}: choose one of them")
        optimizer([nn.Parameter(torch.zeros(1))])  # refuses bad arguments now, not when training begins
        self.save_hyperparameters(ignore=self.not_saved)
        model = build_model(variant, num_classes, self.task, {"in_channels": in_channels, **(overrides or {})})
        self.model = model.to(memory_format=torch.channels_last)  # the faster layout
        if not isinstance(model, WaveMix) and (fuse or execution not in ("auto", "plain")):
            raise InputError(f"execution and fuse are WaveMix's; {variant} runs plain only: leave them out")
        if not isinstance(model, WaveMix) and backbone:
            raise InputError(f"backbone is WaveMix's; {variant} has none that could be taken: leave it out")
        self.loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        # The prefix keeps the keys apart from attributes of ModuleDict, such as its method `train`.
        self.mean_loss = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in STAGES})
        self.scores = nn.ModuleDict({f"{stage}_scores": self._scores(stage) for stage in STAGES})
        self.preprocessing: dict[str, Any] | None = None
        self._optimizer, self._lr_scheduler, self._lr_interval = optimizer, lr_scheduler, lr_interval
        self._execution, self._compile, self._fuse, self.backbone = execution, compile, fuse, backbone
        self._fused: tuple[nn.Module, ...] = ()  # in a tuple: no part of this module

    @abstractmethod
    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        """The task's metrics of logits and targets, by their names without the stage."""

    def _scores(self, stage: Stage) -> MetricCollection:
        # compute_groups would merge metrics whose first batch happens to give equal counts
        return MetricCollection(self.make_scores(self.hparams["num_classes"]), prefix=f"{stage}_", compute_groups=False)

    def on_fit_start(self) -> None:
        if self.backbone and not self.trainer.ckpt_path:  # not in setup, when Lightning does not say yet if it resumes
            transfer = transfer_backbone(self.model, load_checkpoint(self.backbone))
            rank_zero_info(f"backbone from {self.backbone}: {transfer}")
        # validate() before fit() leaves states that were made in inference mode, which training may not touch
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()
        if isinstance(self.model, WaveMix):
            fast = self.device.type == "cpu" and not self._compile
            self.model.execution = ("fast" if fast else "plain") if self._execution == "auto" else self._execution
        if self._compile:
            self.model.compile()

    def on_test_start(self) -> None:
        model = self.model
        self._fused = (model.fuse(),) if self._fuse and isinstance(model, (WaveMixClassifier, WaveMixSegmenter)) else ()

    def on_test_end(self) -> None:
        self._fused = ()

    def on_predict_start(self) -> None:
        self.on_test_start()

    def on_predict_end(self) -> None:
        self.on_test_end()

    def forward(self, images: Tensor) -> Tensor:
        model = self._fused[0] if self._fused else self.model
        logits: Tensor = model(images.to(self.dtype))  # for precision bf16-true and the like
        return logits

    def _step(self, stage: Stage, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch; counts both for the stage's metrics."""
        images, targets = batch
        logits = self._logits(stage, images, targets)
        loss: Tensor = self.loss(logits, targets)
        mean_loss = cast(MeanMetric, self.mean_loss[f"{stage}_loss"])
        scores = cast(MetricCollection, self.scores[f"{stage}_scores"])
        mean_loss.update(loss.detach(), weight=len(images))
        # mixed images have shares of classes: the largest is what is counted
        scores.update(logits.detach(), targets.argmax(1) if targets.is_floating_point() else targets)
        how: dict[str, Any] = {
            "on_step": False,
            "on_epoch": True,
            "prog_bar": stage != "test",
            "batch_size": len(images),
        }
        self.log(f"{stage}_loss", mean_loss, **how)
        self.log_dict(scores, **how)
        return loss, logits

    def _logits(self, stage: Stage, images: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = self(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step("train", batch)[0]

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
        if isinstance(scheduler, WarmupCosine):
            self._compare_epochs(scheduler.epochs)
        entry: dict[str, Any] = {"scheduler": scheduler, "interval": self._lr_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            entry["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": entry}

    def _compare_epochs(self, scheduled: int) -> None:
        trainer = self._trainer
        if trainer and not getattr(trainer, "fast_dev_run", False) and trainer.max_epochs not in (None, scheduled):
            rank_zero_warn(f"WarmupCosine has {scheduled} epochs, the run {trainer.max_epochs}: set both alike")

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


class SegmentationModule(ImageModule):
    """Semantic segmentation: cross-entropy of the pixels that are not void, mean IoU, pixel accuracy.

    Targets are masks (B, H, W). Where they have another size than the images, the logits are resized to theirs, so
    that scores are those at full resolution; in training there is the loss alone. `test_miou` and `val_miou` are those
    of the official Cityscapes evaluation (`wavemix_pl.scores`); the IoU of each class is in `class_iou` after an
    evaluation.

    Args:
        void_index: Target of void pixels, which count neither in the loss nor in the scores; where it is one of the K
            classes, as in the published code, the loss counts it like the others. The command line takes it from the
            data.
        test_time: Scales, mirrors and windows in `test` and `predict`. The paper uses none of them.
        published_score: Whether to log `published_score`, which the published code calls mIoU, beside the mean IoU.
        kwargs: As in `ImageModule`; `variant` may also be "ConvMixer-DIM/DEPTH", with the same head.

    Attributes:
        class_iou: (K,) of the last evaluation; NaN for classes that neither occurred nor were predicted.
    """

    task = "segmentation"
    monitor = "val_miou"
    not_saved = (*ImageModule.not_saved, "test_time", "published_score")

    def __init__(
        self,
        void_index: int = 255,
        test_time: TestTime = PLAIN,
        published_score: bool = False,
        **kwargs: Any,
    ) -> None:
        self._void_index = void_index
        super().__init__(**kwargs)
        num_classes, label_smoothing = self.hparams["num_classes"], self.hparams["label_smoothing"]
        ignored = void_index if void_index >= num_classes else -100
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing, ignore_index=ignored)
        self.test_time = test_time
        masks = [SegmentationScores(num_classes, void_index)]
        kinds = nn.ModuleList([*masks, PublishedScore(void_index)] if published_score else masks)
        self.evaluations = nn.ModuleDict({f"{stage}_masks": deepcopy(kinds) for stage in ("val", "test")})
        self.class_iou: Tensor | None = None

    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        accuracy = MulticlassAccuracy(num_classes, average="micro", ignore_index=self._void_index)
        return {"pixel_accuracy": accuracy}

    def _scores(self, stage: Stage) -> MetricCollection:
        # none in training, where counting every pixel of every step would take an eighth of a small model's time
        return MetricCollection({}) if stage == "train" else super()._scores(stage)

    def _logits(self, stage: Stage, images: Tensor, targets: Tensor) -> Tensor:
        logits = segment(self, images, self.test_time) if stage == "test" else self(images)
        if logits.shape[-2:] != targets.shape[-2:]:
            logits = F.interpolate(logits, size=targets.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: Literal["val", "test"], batch: Batch) -> None:
        _, logits = self._step(stage, batch)
        for metric in self._metrics_of_masks(stage):
            metric.update(logits.detach(), batch[1])

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, stage: Literal["val", "test"]) -> None:
        masks, *published = self._metrics_of_masks(stage)
        scores = cast(SegmentationScores, masks).scores()  # one matrix over all images and ranks
        self.class_iou = scores["iou"]
        self.log(f"{stage}_miou", scores["miou"], prog_bar=stage == "val")
        for metric in published:
            self.log(f"{stage}_published_score", metric.compute())
        for metric in (masks, *published):
            metric.reset()

    def _metrics_of_masks(self, stage: Literal["val", "test"]) -> list[Metric]:
        return list(cast(Any, self.evaluations[f"{stage}_masks"]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logarithms of probabilities (B, K, H, W), float32. Resized, they give the classes that logits would."""
        return segment(self, batch[0], self.test_time).float().log_softmax(dim=1)
