"""The LightningModules of the tasks; what they share is in `image_module.py`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from wavemix_pl.image_module import Batch, ImageModule, Stage
from wavemix_pl.inference import PLAIN, TestTime, segment
from wavemix_pl.scores import PublishedScore, SegmentationScores

__all__ = ["ClassificationModule", "ImageModule", "SegmentationModule"]


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
        confusion: (K, K) pixels of the last evaluation, rows of the true class.
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
        self._ignored = ignored = void_index if void_index >= num_classes else -100
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing, ignore_index=ignored)
        self.test_time = test_time
        masks = [SegmentationScores(num_classes, void_index)]
        kinds = nn.ModuleList([*masks, PublishedScore(void_index)] if published_score else masks)
        self.evaluations = nn.ModuleDict({f"{stage}_masks": deepcopy(kinds) for stage in ("val", "test")})
        self.class_iou: Tensor | None = None
        self.confusion: Tensor | None = None

    def make_scores(self, num_classes: int) -> dict[str, Metric | MetricCollection]:
        accuracy = MulticlassAccuracy(num_classes, average="micro", ignore_index=self._void_index)
        return {"pixel_accuracy": accuracy}

    def _scores(self, stage: Stage) -> MetricCollection:
        # none in training, where counting every pixel of every step would take an eighth of a small model's time
        return MetricCollection({}) if stage == "train" else super()._scores(stage)

    def _counted(self, targets: Tensor) -> Tensor:
        return (targets != self._ignored).sum()

    def _logits(self, stage: Stage, images: Tensor, targets: Tensor) -> Tensor:
        logits = segment(self, images, self.test_time) if stage == "test" else self(images)
        if logits.shape[-2:] != targets.shape[-2:]:
            logits = F.interpolate(logits, size=targets.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: Literal["val", "test"], batch: Batch) -> Tensor:
        _, logits = self._step(stage, batch)
        for metric in self._metrics_of_masks(stage):
            metric.update(logits.detach(), batch[1])
        return logits.detach()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._log_evaluation("test")

    def _log_evaluation(self, stage: Literal["val", "test"]) -> None:
        masks, *published = self._metrics_of_masks(stage)
        scores = cast(SegmentationScores, masks).scores()  # one matrix over all images and ranks
        self.class_iou, self.confusion = scores["iou"], masks.compute()
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
