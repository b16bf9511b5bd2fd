"""How many images a second the data modules give, beside torchvision's usual way: the verb `benchmark data`."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data import EmbeddedFashionMNIST, ImageDataModule, ImageFolderData, ShardData
from wavemix_pl.data.shards import write_shards
from wavemix_pl.data.tensor_images import TensorImages
from wavemix_pl.datasets import KINDS
from wavemix_pl.errors import InputError
from wavemix_pl.parser import Parser

_PHOTOGRAPHS, _SIZE = 256, (375, 500)  # ImageNet's usual size


@dataclass(frozen=True)
class DataSpeed:
    """One epoch of training images, normalised and in batches.

    Attributes:
        name: Of the data module.
        images: In the epoch.
        ours: Images a second of our data module.
        torchvision: Images a second of a DataLoader over single images, each transformed by itself.
        ratio: ours / torchvision.
    """

    name: str
    images: int
    ours: float
    torchvision: float
    ratio: float


def data_speed(root: str = "data", batch_size: int = 128, num_workers: int = 0, rounds: int = 3) -> list[DataSpeed]:
    """Measures the embedded sample, what is found of the sets that lie in memory, and generated JPEG files.

    The files lie in a folder, and where webdataset is installed in an archive as well.

    Args:
        root: Folder of data sets.
        batch_size: Images at a time; of the JPEG files 16 at most.
        num_workers: Processes that load.
        rounds: How often each is timed, in turns; the median counts.

    Raises:
        InputError: A number that cannot be used.
    """
    if min(batch_size, rounds) < 1:
        raise InputError(f"batch_size and rounds must be at least 1, got {batch_size}, {rounds}")
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
    modules: list[ImageDataModule] = [EmbeddedFashionMNIST(**options)]
    for kind in KINDS.values():
        try:
            module = kind(root=root, **options)  # type: ignore[call-arg]  # all of KINDS have one
        except InputError:  # not there
            continue
        if module.found() and isinstance(module.load("train"), TensorImages):
            modules.append(module)
    results = [_compare(module, _per_image(module), rounds) for module in modules]
    with tempfile.TemporaryDirectory() as folder:
        _write_photographs(Path(folder) / "train")
        options["batch_size"] = min(batch_size, 16)  # so few images must make work for all workers
        options |= {"image_size": (224, 224), "val_fraction": 1 / 16}
        photographs: list[ImageDataModule] = [own := ImageFolderData(root=folder, **options)]
        if importlib.util.find_spec("webdataset"):
            write_shards(own.parts(), list(own.class_names), Path(folder) / "shards", report=lambda _: None)
            photographs.append(ShardData(root=str(Path(folder) / "shards"), **options))
        steps = [v2.Resize((224, 224)), v2.PILToTensor(), *_normalize(own)]
        files = datasets.ImageFolder(str(Path(folder) / "train"), v2.Compose(steps))
        return [*results, *(_compare(module, files, rounds) for module in photographs)]


def _compare(module: ImageDataModule, reference: Dataset[Any], rounds: int) -> DataSpeed:
    module.setup("fit")
    ours = module.train_dataloader()
    options = {"batch_size": module.batch_size, "num_workers": module.num_workers, "drop_last": True}
    theirs: DataLoader[Any] = DataLoader(reference, shuffle=True, persistent_workers=module.num_workers > 0, **options)  # type: ignore[arg-type]
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        speeds["ours"].append(_images_per_s(ours, lambda batch: module.on_after_batch_transfer(batch, 0)))
        speeds["theirs"].append(_images_per_s(theirs, lambda batch: batch))
    a, b = (statistics.median(speeds[key]) for key in ("ours", "theirs"))
    return DataSpeed(type(module).__name__, len(reference), a, b, a / b)  # type: ignore[arg-type]


def _images_per_s(loader: Iterable[Any], finish: Callable[[Any], Any]) -> float:
    images, start = 0, time.perf_counter()
    for batch in loader:
        images += len(finish(batch)[0])
    return images / (time.perf_counter() - start)


class _PerImage(Dataset[Any]):
    """As torchvision's data sets that lie in memory give their images: each as a PIL image, then transformed."""

    def __init__(self, stored: TensorImages, transform: Callable[[Any], Any]) -> None:
        self.pixels = stored.images.permute(0, 2, 3, 1).squeeze(-1).numpy()
        self.targets, self.transform = stored.targets.tolist(), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.targets[index]


def _per_image(module: ImageDataModule) -> _PerImage:
    stored = module.load("train")
    assert isinstance(stored, TensorImages)
    return _PerImage(stored, v2.Compose([v2.PILToTensor(), *_normalize(module)]))


def _normalize(module: ImageDataModule) -> list[Any]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(module.mean), list(module.std))]


def _write_photographs(folder: Path) -> None:
    """JPEG files of smooth noise, which compress about as photographs do."""
    rng = torch.Generator().manual_seed(0)
    for number in range(_PHOTOGRAPHS):
        path = folder / f"class{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = torch.randint(0, 256, (3, _SIZE[0] // 8, _SIZE[1] // 8), generator=rng, dtype=torch.uint8)
        TF.to_pil_image(TF.resize(coarse, list(_SIZE), antialias=True)).save(path, quality=90)


def run(arguments: list[str]) -> None:
    """The verb `benchmark data`: prints a table, or with `--json` a list of objects."""
    parser = Parser(prog="wavemix-pl benchmark data", description="Images a second of the data modules.")
    parser.add_function_arguments(data_speed)
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    options = parser.parse_args(arguments).as_dict()
    as_json = options.pop("json")
    results = data_speed(**options)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    table = Table("data", "images", "ours, images/s", "torchvision, images/s", "ratio")
    for r in results:
        table.add_row(r.name, f"{r.images:,}", f"{r.ours:,.0f}", f"{r.torchvision:,.0f}", f"{r.ratio:.2f}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"{options['num_workers']} workers, batches of {options['batch_size']}", highlight=False)
