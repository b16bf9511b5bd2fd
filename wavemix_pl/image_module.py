"""What the LightningModules share: one step around the models of `wavemix_pl.models`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, cast, get_args

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from wavemix_pl.errors import InputError
from wavemix_pl.freezing import freeze as freeze_backbone
from wavemix_pl.freezing import settle_modes
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.wavemix import WaveMix, WaveMixClassifier, WaveMixSegmenter
from wavemix_pl.models.weights import load_weights
from wavemix_pl.schedules import WarmupCosine

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
        weights: What the model begins with, head included: a file, ours or the authors', or the name of published
            weights, see `wavemix_pl.models.weights`. Taken once, when training begins, or a test of them; not where a
            checkpoint is loaded, such as by a resumed run.
        backbone: The same for stem and blocks of a WaveMix only, such as those of a classifier for a segmenter; the
            head stays new.
        freeze: "backbone" trains the head of a WaveMix only. In stem and blocks there is then no dropout, and batch
            norms keep their statistics. The callback `GradualUnfreezing` ends it, part by part.

    Attributes:
        preprocessing: What the training data did to its images and the names of its classes, in plain values; saved
            in checkpoints so that `wavemix-pl predict` can do the same. None before training.
    """

    task: ClassVar[Literal["classification", "segmentation"]]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    # arguments that another run may choose anew
    not_saved: ClassVar[tuple[str, ...]] = (
        *("optimizer", "lr_scheduler", "execution", "compile", "fuse", "weights", "backbone"),
    )

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
        weights: str | None = None,
        backbone: str | None = None,
        freeze: Literal["none", "backbone"] = "none",
    ) -> None:
        super().__init__()
        if overrides and "in_channels" in overrides:
            raise InputError("in_channels is told by the data: leave it out of overrides")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if compile and execution not in ("auto", "plain"):
            raise InputError(f"compile goes with plain execution only, not with {execution!r}: choose one of them")
        if weights and backbone:
            raise InputError(f"weights {weights} and backbone {backbone}: give one of them, weights have a backbone")
        optimizer([nn.Parameter(torch.zeros(1))])  # refuses bad arguments now, not when training begins
        self.save_hyperparameters(ignore=self.not_saved)
        model = build_model(variant, num_classes, self.task, {"in_channels": in_channels, **(overrides or {})})
        self.model = model.to(memory_format=torch.channels_last)  # the faster layout
        of_wavemix = {"fuse": fuse, "backbone": backbone, "freeze": freeze != "none"}
        of_wavemix["execution"] = execution not in ("auto", "plain")
        for name, given in of_wavemix.items():
            if given and not isinstance(model, WaveMix):
                raise InputError(f"{name} is for WaveMix only, not for {variant}: leave it out")
        self.loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        # The prefix keeps the keys apart from attributes of ModuleDict, such as its method `train`.
        self.mean_loss = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in STAGES})
        self.scores = nn.ModuleDict({f"{stage}_scores": self._scores(stage) for stage in STAGES})
        self.preprocessing: dict[str, Any] | None = None
        self._optimizer, self._lr_scheduler, self._lr_interval = optimizer, lr_scheduler, lr_interval
        self._execution, self._compile, self._fuse, self._freeze = execution, compile, fuse, freeze == "backbone"
        self._weights, self._backbone = weights, backbone
        self._fused: tuple[nn.Module, ...] = ()  # in a tuple: no part of this module

    @abstractmethod
    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        """The task's metrics of logits and targets, by their names without the stage."""

    def _scores(self, stage: Stage) -> MetricCollection:
        # compute_groups would merge metrics whose first batch happens to give equal counts
        return MetricCollection(self.make_scores(self.hparams["num_classes"]), prefix=f"{stage}_", compute_groups=False)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self._freeze:  # before DistributedDataParallel asks which parameters are trained
            freeze_backbone(cast(WaveMix, self.model))

    def _take_weights(self) -> None:
        """Not in `setup`, after which a checkpoint may still be loaded."""
        name, source = ("backbone", self._backbone) if self._backbone else ("weights", self._weights)
        if source:
            try:
                transfer = load_weights(self.model, source, new_head=name == "backbone")
            except InputError as error:  # `load_weights` speaks of its own argument
                raise InputError(str(error).replace("new_head=True", "backbone in the place of weights")) from error
            rank_zero_info(f"{name} from {source}: {transfer}")
        self._weights = self._backbone = None

    def on_fit_start(self) -> None:
        self._take_weights()
        # validate() before fit() leaves states that were made in inference mode, which training may not touch
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()
        if isinstance(self.model, WaveMix):
            fast = self.device.type == "cpu" and not self._compile
            self.model.execution = ("fast" if fast else "plain") if self._execution == "auto" else self._execution
        if self._compile:
            self.model.compile()

    def on_train_start(self) -> None:
        if self._freeze:  # not earlier, when Lightning warns of modules in evaluation mode
            settle_modes(cast(WaveMix, self.model))

    def on_validation_start(self) -> None:
        self._take_weights()

    def on_test_start(self) -> None:
        self._take_weights()
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
        mean_loss.update(loss.detach(), weight=self._counted(targets))
        # mixed images have shares of classes: the largest is what is counted
        scores.update(logits.detach(), targets.argmax(1) if targets.is_floating_point() else targets)
        return loss, logits

    def _log(self, stage: Stage) -> None:
        """Once an epoch: in each step it would take 4% of a tiny model's time."""
        self.log(f"{stage}_loss", cast(MeanMetric, self.mean_loss[f"{stage}_loss"]), prog_bar=stage != "test")
        self.log_dict(cast(MetricCollection, self.scores[f"{stage}_scores"]), prog_bar=stage != "test")

    def on_train_epoch_end(self) -> None:
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def _counted(self, targets: Tensor) -> int | Tensor:
        """Of how many targets a batch's loss is the mean."""
        return len(targets)

    def _logits(self, stage: Stage, images: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = self(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step("train", batch)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The logits, for callbacks that show them."""
        return self._step("val", batch)[1].detach()

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
        self._weights = self._backbone = None
