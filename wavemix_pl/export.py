"""The verb `export`: a trained model as a file for other engines, which is compared with PyTorch before it is there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import torch

from wavemix_pl import __version__
from wavemix_pl.errors import InputError
from wavemix_pl.export_formats import TARGETS, Facts, Format, Runner, library, trace
from wavemix_pl.export_source import Size, Source, choose_sizes, read_source
from wavemix_pl.parser import Parser

if TYPE_CHECKING:
    from wavemix_pl.export_int8 import Accuracy, Images

_TOLERANCE = 1e-4  # of logits of size 1


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: All of them, that which was asked for first.
        format: Of it.
        model: In the paper's notation.
        fused: Whether in the form of `model.fuse()`.
        images: What it takes, such as "B x 3 x 8*rows x 8*columns".
        megabytes: Size of all files.
        checked: Sizes of the batches on which it was compared with the model in PyTorch.
        difference: Of their logits, at most, before quantisation.
        calibrated_on: Images that gave int8 its ranges.
        accuracy: What int8 costs.
        notes: What could not be had.
    """

    files: list[str]
    format: Format
    model: str
    fused: bool
    images: str
    megabytes: float
    checked: list[str]
    difference: float
    calibrated_on: str | None
    accuracy: Accuracy | None
    notes: list[str]


def export(
    checkpoint: str,
    format: Format = "onnx",
    output: str | None = None,
    image_size: str | None = None,
    dynamic: bool = False,
    fuse: bool | Literal["auto"] = "auto",
    data: str | None = None,
    root: str = "data",
    calibration: str | None = None,
    calibration_images: int = 256,
    test_images: int = 1000,
    overwrite: bool = False,
) -> Exported:
    """Exports a model, for batches of any length.

    Args:
        checkpoint: Of a run, such as runs/RUN/checkpoints/best.ckpt, or the name of published weights.
        format: "onnx"; "torch", a program of torch.export; "openvino"; "onnx-int8", statically quantised.
        output: File to write, which ends in .onnx, .pt2 or .xml. Default: beside the checkpoint, by its name.
        image_size: "HxW" of the images that it takes. Default: that of the training, and all others whose sides divide
            by what stem and levels divide by; where that of the training does not, it alone.
        dynamic: Take all such sizes, or end with an error.
        fuse: Whether the model is exported as `model.fuse()` makes it, which no engine was seen to run slower. "auto"
            exports the plain form where the fused one fails.
        data: Data set whose images calibrate (validation) and measure (test) int8, such as CIFAR10. Default: the sample
            that comes with the package, if the model was trained on such images.
        root: Folder of data sets.
        calibration: Folder of images to calibrate int8 with.
        calibration_images: So many at most.
        test_images: Likewise.
        overwrite: Whether files that are there are replaced.

    Raises:
        InputError: Something given cannot be used, a library is missing, or the format cannot hold the model.
    """
    if format not in TARGETS:
        raise InputError(f"format must be one of {', '.join(TARGETS)}, got {format!r}")
    if min(calibration_images, test_images) < 1:
        raise InputError(f"images must be at least 1, got {calibration_images} and {test_images}")
    target = TARGETS[format]
    source = read_source(checkpoint)
    path = _output(output, source, format, target.suffix)
    present = [file for file in (path, *target.beside(path)) if file.exists()]
    if present and not overwrite:
        raise InputError(f"{present[0]} is there already: pass --overwrite, or another --output")
    for name in target.libraries:
        library(name)
    size, sides, notes = choose_sizes(source, image_size, dynamic)
    images = None
    if format == "onnx-int8":
        from wavemix_pl.export_int8 import choose_images  # imports lightning, which takes seconds

        images = choose_images(source.preprocessing, data, root, calibration, calibration_images, test_images)
    forms = (True, False) if fuse == "auto" else (fuse,)
    for fused, free in product(forms, sides):
        attempt = _Attempt(source, format, path, fused, size, free)
        try:
            return attempt.run(images, notes)
        except (InputError, OSError):
            raise
        except Exception as error:  # whatever the exporters and engines raise for what they cannot do
            notes = [*notes, f"{attempt} cannot be had ({_first_line(error)})"]
    raise InputError(f"{format}: {'; '.join(notes)}")


def _output(given: str | None, source: Source, format: Format, suffix: str) -> Path:
    if given is None:
        return source.file.with_name(source.file.name + (".int8" if format == "onnx-int8" else "") + suffix)
    path = Path(given).expanduser()
    if path.suffix != suffix:
        raise InputError(f"--output={given}: the name of a file for {format} ends in {suffix}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--output={given}: {path.parent} is no folder: make it first")
    return path


@dataclass(frozen=True)
class _Attempt:
    """One way to export: the form, and whether the sides are free."""

    source: Source
    format: Format
    path: Path
    fused: bool
    size: Size
    multiple: int | None

    def __str__(self) -> str:
        form = "fused" if self.fused else "plain"
        return f"the {form} form at " + (f"multiples of {self.multiple}" if self.multiple else "one size")

    def run(self, images: tuple[Images, Images] | None, notes: list[str]) -> Exported:
        """Writes the files in a folder of their own, compares, and moves them to where they belong."""
        target, model = TARGETS[self.format], self.source.model
        facts = self._facts()
        with TemporaryDirectory(dir=self.path.absolute().parent, prefix=".export-") as folder:
            written = Path(folder, self.path.name)
            traced = trace(model.fuse() if self.fused else model, model.config.in_channels, self.size, self.multiple)
            target.write(traced, written, facts)
            run = target.open(written)
            checked = list(self._check(run))
            accuracy = None
            if images:
                accuracy = self._quantise(written, run, images, facts)
            files = [written, *target.beside(written)]
            size = sum(file.stat().st_size for file in files) / 1e6
            for file, place in reversed(list(zip(files, [self.path, *target.beside(self.path)], strict=True))):
                file.replace(place)  # that which was asked for last: where it is, all are
        return Exported(
            files=[str(self.path), *map(str, target.beside(self.path))],
            format=self.format,
            model=model.config.notation,
            fused=self.fused,
            images=facts["images"],
            megabytes=size,
            checked=[name for name, _ in checked],
            difference=max(difference for _, difference in checked),
            calibrated_on=images[0].what if images else None,
            accuracy=accuracy,
            notes=notes,
        )

    def _facts(self) -> Facts:
        """What whoever gets the file has to know."""
        config, (rows, columns) = self.source.model.config, self.size
        sides = f"{self.multiple}*rows x {self.multiple}*columns" if self.multiple else f"{rows} x {columns}"
        known = {name: value for name, value in self.source.preprocessing.items() if value is not None}
        how = "pixels divided by 255, then for each channel minus mean, divided by std"
        return {
            **known,
            "wavemix_pl": __version__,
            "model": config.notation,
            "task": self.source.model.task,
            "form": "fused" if self.fused else "plain",
            "precision": "int8" if self.format == "onnx-int8" else "float32",
            "image_size": list(self.size),
            "images": f"B x {config.in_channels} x {sides}",
            "values": how if "mean" in known else "as in training, of which the weights do not tell",
        }

    def _check(self, run: Runner) -> Iterator[tuple[str, float]]:
        """Batches other than that of the tracing, and the differences of their logits from the model's."""
        model, (rows, columns) = self.source.model, self.size
        larger = (rows + self.multiple, columns + 2 * self.multiple) if self.multiple else self.size
        for batch, size in ((3, self.size), (1, larger)):
            images = torch.randn(batch, model.config.in_channels, *size, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                expected = model(images)
            found = run(images)
            difference = float((found - expected).abs().max()) if found.shape == expected.shape else math.inf
            if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
                raise RuntimeError(f"its logits differ from PyTorch's by {difference:.1e}")
            yield f"{batch}x{size[0]}x{size[1]}", difference

    def _quantise(self, written: Path, run: Runner, images: tuple[Images, Images], facts: Facts) -> Accuracy:
        from wavemix_pl.export_int8 import measure, quantise

        open_, model = TARGETS[self.format].open, self.source.model
        quantised = written.with_suffix(".quantised.onnx")
        quantise(written, quantised, images[0], facts)
        engines = {"PyTorch float32": model, "ONNX float32": run, "ONNX int8": open_(quantised)}
        accuracy = measure(engines, images[1], model.num_classes)
        quantised.replace(written)
        return accuracy


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def run(arguments: list[str]) -> None:
    """The verb `export`."""
    parser = Parser(prog="wavemix-pl export", description="Writes a trained model for other engines.")
    parser.add_argument("checkpoint", help="Checkpoint of a run, or the name of published weights.")
    flags = {"dynamic": "Take all sizes, or end with an error.", "overwrite": "Replace files that are there."}
    for name, what in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    parser.add_function_arguments(export, skip={"checkpoint", *flags})
    parser.add_argument("--json", action="store_true", help="Print JSON instead of lines.")
    options = parser.parse_args(arguments[1:]).as_dict()
    as_json = options.pop("json")
    exported = export(**options)
    if as_json:
        print(json.dumps(asdict(exported), indent=2))
    else:
        _print(exported)


def _print(exported: Exported) -> None:
    form = "fused" if exported.fused else "plain"
    print(f"{exported.model}, {form}, as {exported.format}: {', '.join(exported.files)} ({exported.megabytes:.2f} MB)")
    free = ", rows and columns from 2 on" if "rows" in exported.images else ""
    print(f"takes float32 images {exported.images}{free}")
    checked = ", ".join(exported.checked)
    when = "before quantisation " if exported.accuracy else ""
    print(f"{when}equal to PyTorch within {exported.difference:.0e}, at batches x rows x columns {checked}")
    for note in exported.notes:
        print(f"note: {note}")
    if exported.accuracy is None:
        return
    print(f"int8: calibrated on {exported.calibrated_on}; on {exported.accuracy.measured_on}:")
    print(f"  same class as PyTorch float32 {exported.accuracy.agreement:.2%}")
    for score, engines in exported.accuracy.scores.items():
        values = list(engines.values())
        each = ", ".join(f"{name} {value:.2%}" for name, value in engines.items())
        print(f"  {score}: {each}; drop {100 * (values[0] - values[-1]):.2f} points")
