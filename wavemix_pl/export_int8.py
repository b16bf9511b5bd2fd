"""Static quantisation of an exported model by ONNX Runtime, and what it costs in accuracy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from wavemix_pl import data
from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.matching import SAME, matching_data
from wavemix_pl.errors import InputError
from wavemix_pl.export_formats import Facts, Runner, library, save_onnx
from wavemix_pl.scores import SegmentationScores

_BATCH = 32
_PIXELS = 2**20  # of a batch, at most


@dataclass(frozen=True)
class Images:
    """Where batches come from.

    Attributes:
        what: In words.
        batches: Makes a pass over (images, targets), normalised; targets are of use only where `labelled`.
        labelled: Whether the targets are classes or masks.
        void_index: Of pixels without a class, in masks.
    """

    what: str
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    labelled: bool
    void_index: int = 255


@dataclass(frozen=True)
class Accuracy:
    """What quantisation costs.

    Attributes:
        measured_on: Which images the numbers are of.
        agreement: Share of the images, or pixels, in which int8 names the same class as PyTorch in float32.
        scores: Score -> engine -> fraction. Empty where the images have no labels.
    """

    measured_on: str
    agreement: float
    scores: dict[str, dict[str, float]]


def choose_images(
    preprocessing: Mapping[str, Any],
    name: str | None,
    root: str,
    folder: str | None,
    calibration_images: int,
    test_images: int,
) -> tuple[Images, Images]:
    """The images to calibrate with, and those to measure on.

    Args:
        preprocessing: Of the checkpoint.
        name: Of a data set, whose validation images calibrate and whose test images measure. None is the sample that
            the package brings, if the model was trained on such images.
        root: Folder of data sets.
        folder: Of image files to calibrate with instead; where no data set is named, int8 is compared on them as well.
        calibration_images: So many at most, from all over the data.
        test_images: Likewise.

    Raises:
        InputError: There are no such images, or they are not of the kind that the model was trained on.
    """
    if not {*SAME, "image_size"} <= preprocessing.keys():
        raise InputError("onnx-int8 needs images, and this checkpoint does not say how they were prepared")
    rows, columns = preprocessing["image_size"]
    batch_size = max(1, min(_BATCH, _PIXELS // (rows * columns)))
    sample = data.EmbeddedFashionMNIST().preprocessing
    if name is None and all(sample[key] == preprocessing[key] for key in (*SAME, "image_size")):
        name = "EmbeddedFashionMNIST"
    calibration = _of_files(folder, preprocessing, batch_size, calibration_images) if folder else None
    if name is None:
        if calibration is None:
            raise InputError("onnx-int8 needs images to calibrate with: pass --data=NAME or --calibration=FOLDER")
        return calibration, calibration
    module = matching_data(name, root, preprocessing, batch_size)
    if calibration is None:
        module.setup("validate")
        module.val_set = chosen = _some(module.val_set, calibration_images)
        calibration = _of_module(module, f"{len(chosen):,} validation images of {name}", module.val_dataloader)
    module.setup("test")
    module.test_set = chosen = _some(module.test_set, test_images)
    return calibration, _of_module(module, f"{len(chosen):,} test images of {name}", module.test_dataloader)


def _some(images: Dataset[Any] | None, count: int) -> Subset[Any]:
    total = len(images)  # type: ignore[arg-type]  # all of ours have a length
    count = min(count, total)
    return Subset(images, [i * total // count for i in range(count)])  # type: ignore[arg-type]  # ours are of plain items


def _of_module(module: ImageDataModule, what: str, loader: Callable[[], Any]) -> Images:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader():
            yield module.on_after_batch_transfer(batch, 0)

    return Images(what, batches, True, module.void_index)


def _of_files(folder: str, preprocessing: Mapping[str, Any], batch_size: int, count: int) -> Images:
    module = data.ImageFiles([folder], dict(preprocessing), batch_size)
    total = len(module.files)
    count = min(count, total)
    module.files = [module.files[i * total // count] for i in range(count)]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in module.predict_dataloader():
            yield module.on_after_batch_transfer(batch, 0)

    return Images(f"{count} image files of {folder}", batches, False)


def quantise(source: Path, target: Path, calibration: Images, facts: Facts) -> None:
    """Writes the int8 form of an ONNX file, in which pairs of QuantizeLinear and DequantizeLinear tell the ranges.

    Weights are signed, with a scale for each channel; activations unsigned, with one for the whole map: on a processor
    with VNNI faster than signed ones, at the same differences. On x86 without it, sums of this kind can saturate, so
    that the accuracy has to be measured there.
    """
    quantization = library("onnxruntime.quantization")
    shapes = library("onnxruntime.quantization.shape_inference")
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises what is being done
    try:
        prepared = target.with_suffix(".prepared.onnx")
        shapes.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            _Reader(calibration.batches()),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            per_channel=True,
        )
    finally:
        logging.root.setLevel(before)
    save_onnx(library("onnx").load(target), target, facts)


class _Reader:
    """Batches as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return {"images": batch[0].numpy()} if batch else None


def measure(engines: Mapping[str, Runner], images: Images, num_classes: int) -> Accuracy:
    """Compares engines, by name, of which the first is the measure and the last is quantised."""
    metrics: dict[str, Metric] = {}
    agreeing, total = 0, 0
    for batch, targets in images.batches():
        with torch.inference_mode():
            logits = {name: run(batch) for name, run in engines.items()}
        classes = [one.argmax(1) for one in logits.values()]
        agreeing += int((classes[0] == classes[-1]).sum())
        total += classes[0].numel()
        for name, one in logits.items() if images.labelled else ():
            if name not in metrics:
                metrics[name] = _metric(targets, num_classes, images.void_index)
            if targets.ndim == 3 and one.shape[-2:] != targets.shape[-2:]:
                one = F.interpolate(one, size=targets.shape[-2:], mode="bilinear", align_corners=False)
            metrics[name].update(one, targets)
    return Accuracy(images.what, agreeing / total, _scores(metrics))


def _metric(targets: Tensor, num_classes: int, void_index: int) -> Metric:
    masks = targets.ndim == 3
    return SegmentationScores(num_classes, void_index) if masks else MulticlassAccuracy(num_classes, average="micro")


def _scores(metrics: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for name, metric in metrics.items():
        if isinstance(metric, SegmentationScores):
            found = {key: value for key, value in metric.scores().items() if value.ndim == 0}
        else:
            found = {"top1": metric.compute()}
        for key, value in found.items():
            scores.setdefault(key, {})[name] = float(value)
    return scores
