"""Mean IoU against its definition, torchmetrics, and what the published code computes."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from wavemix_pl.scores import PublishedScore, SegmentationScores


def masks(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (3, 8, 9), generator=generator)
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target, (target + 1) % classes)
    target[0, :4] = 255
    return predicted, target


def test_over_all_images_not_image_by_image() -> None:
    metric, theirs = SegmentationScores(5), MulticlassJaccardIndex(5, ignore_index=255, average="macro")
    one_by_one = []
    for seed in range(4):
        predicted, target = masks(seed)
        metric.update(predicted, target)
        theirs.update(predicted, target)
        single = SegmentationScores(5)
        single.update(predicted, target)
        one_by_one.append(float(single.scores()["miou"]))
    assert float(metric.scores()["miou"]) == pytest.approx(float(theirs.compute()), abs=1e-6)
    assert abs(float(metric.scores()["miou"]) - sum(one_by_one) / 4) > 1e-6


def test_by_hand() -> None:
    metric = SegmentationScores(3)
    metric.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
    scores = metric.scores()
    # class 0: 1 right, 1 too many; class 1: 1 right, 1 missed; class 2: nowhere
    assert scores["iou"][:2].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert math.isnan(float(scores["iou"][2]))
    assert float(scores["miou"]) == pytest.approx(0.5)
    assert float(scores["pixel_accuracy"]) == pytest.approx(2 / 3)


def test_absent_but_predicted_has_iou_zero() -> None:
    metric = SegmentationScores(3)
    metric.update(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]]))
    assert metric.scores()["iou"].nan_to_num(-1).tolist() == [0.5, -1, 0]


def test_void_as_a_class_that_can_be_predicted() -> None:
    """A prediction of void on a labelled pixel is a miss; pixels whose truth is void do not count."""
    metric = SegmentationScores(3, ignore_index=0)
    metric.update(torch.tensor([[[0, 1, 2, 1]]]), torch.tensor([[[1, 1, 2, 0]]]))
    iou = metric.scores()["iou"]
    assert math.isnan(float(iou[0]))
    assert iou[1:].tolist() == [0.5, 1.0]


def test_logits_and_classes_are_both_read() -> None:
    predicted, target = masks(0)
    logits = torch.nn.functional.one_hot(predicted, 5).movedim(-1, 1).float()
    results = []
    for preds in (predicted, logits):
        metric = SegmentationScores(5)
        metric.update(preds, target)
        results.append(float(metric.scores()["miou"]))
    assert results[0] == results[1]


def test_published_score_by_hand() -> None:
    """Truth 2 and prediction 3 everywhere: 2 & 3 = 2, 2 | 3 = 3, the ratio 2/3 becomes 0.4."""
    metric = PublishedScore(ignore_index=0)
    metric.update(torch.full((1, 2, 2), 3), torch.full((1, 2, 2), 2))
    assert float(metric.compute()) == pytest.approx(0.4)
    metric.update(torch.full((1, 2, 2), 2), torch.full((1, 2, 2), 2))
    assert float(metric.compute()) == pytest.approx(0.7)


def test_published_score_counts_void_as_class_zero() -> None:
    shifted, plain = PublishedScore(ignore_index=255), PublishedScore(ignore_index=0)
    predicted, target = masks(1)
    shifted.update(predicted, target)
    plain.update(predicted + 1, torch.where(target == 255, 0, target + 1))
    assert float(shifted.compute()) == float(plain.compute())
