"""The formats that a model is exported to: how each file is written, and run to see that it is right."""

from __future__ import annotations

import importlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from wavemix_pl.errors import InputError
from wavemix_pl.models.merged_stem import MergedStem, Merging

Format = Literal["onnx", "torch", "openvino", "onnx-int8"]
Facts: TypeAlias = dict[str, Any]
Runner: TypeAlias = Callable[[Tensor], Tensor]
Shapes: TypeAlias = tuple[dict[int, Any]]


@dataclass(frozen=True)
class Traced:
    """A model as torch.export sees it.

    Attributes:
        program: Of images (B, C, H, W), for any B.
        shapes: Which dimensions are free, and how they are called.
    """

    program: ExportedProgram
    shapes: Shapes


def trace(model: nn.Module, channels: int, size: tuple[int, int], multiple: int | None) -> Traced:
    """Traces a model for batches of any length.

    Args:
        model: In evaluation mode; a fused one gets another stem.
        channels: C.
        size: (H, W) of the images that it is traced with.
        multiple: What both sides are a multiple of where they may differ from `size`; None where they may not.
    """
    stem = model.stem
    if isinstance(stem, MergedStem):  # a traced choice by size would hold for those only that choose alike
        model.stem = _Merged(stem) if Merging.of(stem.stem).pays(*size) else stem.stem
    images = torch.zeros(2, channels, *size)
    shapes: Shapes = ({0: Dim("batch")},)
    if multiple:
        shapes[0].update({2: _side("rows", multiple), 3: _side("columns", multiple)})
    with torch.no_grad(), _quiet():
        model(images)  # filters of wavelets are made in the first run and kept: they must not be those of a tracer
        return Traced(torch.export.export(model, (images,), dynamic_shapes=shapes, strict=False), shapes)


def _side(name: str, multiple: int) -> Any:
    count = Dim(name, min=2)  # maps of a single row are a case of their own
    return multiple * count if multiple > 1 else count


class _Merged(nn.Module):
    """A fused model's stem as it is traced: it joins the borders where the model's own overwrites them.

    Exporters make of overwriting an operation that costs more than the convolution.
    """

    def __init__(self, stem: MergedStem) -> None:
        super().__init__()
        self.stem, self.weight, self.bias = stem.stem, stem.weight, stem.bias
        self.reduction = stem.reduction

    def forward(self, images: Tensor) -> Tensor:
        merging = Merging.of(self.stem)
        x = F.conv2d(images, self.weight, self.bias, merging.stride, merging.padding)
        near = merging.kernel - merging.padding  # see Merging.run
        before_last = merging.stride * math.ceil(merging.padding / merging.stride)
        row, column = (merging.stride * (side - 1) - before_last for side in x.shape[-2:])
        top, bottom = (self._convolutions(part) for part in (images[..., :near, :], images[..., row:, :]))
        x = torch.cat((top[..., :1, :], x[..., 1:-1, :], bottom[..., -1:, :]), dim=-2)
        left, right = (self._convolutions(part) for part in (images[..., :near], images[..., column:]))
        x = torch.cat((left[..., :1], x[..., 1:-1], right[..., -1:]), dim=-1)
        for layer in merging.rest:
            x = layer(x)
        return x

    def _convolutions(self, x: Tensor) -> Tensor:
        for convolution in Merging.of(self.stem).convolutions:
            x = convolution(x)
        return x


# -- torch ------------------------------------------------------------------------------------------------------------


def _write_torch(traced: Traced, path: Path, facts: Facts) -> None:
    text = json.dumps(facts, indent=2)
    with _quiet():
        torch.export.save(traced.program, path, extra_files={"wavemix_pl.json": text})
    _beside(path, text)


def _open_torch(path: Path) -> Runner:
    with _quiet():
        run: Runner = torch.export.load(path).module()
    return run


# -- ONNX -------------------------------------------------------------------------------------------------------------


def _write_onnx(traced: Traced, path: Path, facts: Facts) -> None:
    save_onnx(_onnx(traced), path, facts)


def _onnx(traced: Traced) -> Any:
    library("onnxscript")
    with _quiet():
        exported: Any = torch.onnx.export(
            traced.program,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=traced.shapes,  # for the names of dimensions
        )
    model = exported.model_proto
    for node in model.graph.node:  # where in which file of this machine it comes from
        del node.metadata_props[:]
    return model


def save_onnx(model: Any, path: Path, facts: Facts) -> None:
    """Writes a model with what there is to know of it, if ONNX' checker finds no fault."""
    onnx = library("onnx")
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def open_onnx(path: Path) -> Runner:
    """The model of a file in ONNX Runtime, on the CPU."""
    session = library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


# -- OpenVINO ---------------------------------------------------------------------------------------------------------


def _write_openvino(traced: Traced, path: Path, facts: Facts) -> None:
    """By way of ONNX: of torch's own programs OpenVINO refuses operations on sizes that are not known."""
    openvino = library("openvino")
    model = openvino.convert_model(io.BytesIO(_onnx(traced).SerializeToString()))
    openvino.save_model(model, path, compress_to_fp16=False)  # by default weights would lose half of their digits
    _beside(path, json.dumps(facts, indent=2))


def _open_openvino(path: Path) -> Runner:
    # on some processors the default precision is bfloat16
    model = library("openvino").Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: torch.from_numpy(model([images.numpy()])[0].copy())


# -- all --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """How one format is written and run.

    Attributes:
        suffix: How the file's name ends.
        libraries: What must be installed.
        write: Writes the file, with what there is to know of the model; others beside it.
        open: Makes a function of images from the file.
        beside: Names of the files beside it, from its own.
    """

    suffix: str
    libraries: tuple[str, ...]
    write: Callable[[Traced, Path, Facts], None]
    open: Callable[[Path], Runner]
    beside: Callable[[Path], list[Path]] = lambda path: []


_ONNX = ("onnx", "onnxscript", "onnxruntime")
TARGETS: dict[Format, Target] = {
    "onnx": Target(".onnx", _ONNX, _write_onnx, open_onnx),
    "torch": Target(".pt2", (), _write_torch, _open_torch, lambda path: [_json(path)]),
    "openvino": Target(
        ".xml",
        ("onnx", "onnxscript", "openvino"),
        _write_openvino,
        _open_openvino,
        lambda path: [path.with_suffix(".bin"), _json(path)],
    ),
    "onnx-int8": Target(".onnx", _ONNX, _write_onnx, open_onnx),  # what is written here is quantised afterwards
}


def library(name: str) -> Any:
    """Imports a library that only exports need.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{error}; exports need: pip install 'wavemix_pl[export]'") from None


def _json(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _beside(path: Path, text: str) -> None:
    _json(path).write_text(text + "\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters tell about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
