"""Image files in folders of classes: reading them, and anyone's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data.augmentation import Transform
from wavemix_pl.data.base import ImageDataModule, Split
from wavemix_pl.data.image import open_pixels
from wavemix_pl.errors import InputError

Resize = Literal["squash", "center-crop", "random-crop"]


class LabelledFiles(Dataset[Any]):
    """Image files with their classes. Items are (image (3, H, W) uint8, class).

    Args:
        files: Paths with classes.

    Raises:
        InputError: A file that cannot be read as an image, when it is asked for.
    """

    def __init__(self, files: Sequence[tuple[str, int]]) -> None:
        self.paths = [path for path, _ in files]
        self.targets = torch.tensor([target for _, target in files], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return open_pixels(self.paths[index]), self.targets[index]


class FileImages(ImageDataModule):
    """Images from files, each brought to one size by the process that loads it.

    Args:
        root: Folder of the data set.
        image_size: (H, W) of the images that the model sees.
        resize: "squash" resizes without regard to proportions, as the paper did; "center-crop" resizes the shorter side
            and cuts out the middle; "random-crop" does this for validation and test, and cuts training images at random
            (8 to 100% of their area).
        kwargs: As in `ImageDataModule`.
    """

    mean = (0.485, 0.456, 0.406)  # ImageNet's
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str = "data",
        image_size: tuple[int, int] = (224, 224),
        resize: Resize = "squash",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, **kwargs)
        self.root, self.resize = Path(root).expanduser(), resize

    def parts(self) -> dict[str, LabelledFiles]:
        """All splits that there are."""
        splits: tuple[Split, ...] = ("train", "test")
        return {split: cast(LabelledFiles, self.load(split)) for split in splits}

    def transform(self, training: bool) -> Transform:
        size = list(self.image_size)
        if self.resize == "squash":
            steps: list[Any] = [v2.Resize(size, antialias=True)]
        elif self.resize == "random-crop" and training:
            steps = [v2.RandomResizedCrop(size, antialias=True)]
        else:
            steps = [_CoverAndCrop(self.image_size)]
        augment = super().transform(training)
        composed: Transform = v2.Compose([*steps, augment] if augment else steps)
        return composed


class _CoverAndCrop:
    """Resizes until the image just covers a size, and cuts out the middle."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Tensor, target: Tensor | None = None) -> Any:
        height, width = image.shape[-2:]
        scale = max(self.size[0] / height, self.size[1] / width)
        covering = [max(round(height * scale), self.size[0]), max(round(width * scale), self.size[1])]
        cropped: Tensor = TF.center_crop(TF.resize(image, covering, antialias=True), list(self.size))
        return cropped if target is None else (cropped, target)


class ImageFolderData(FileImages):
    """Your own images in a folder for each class.

    `root` holds `train/CLASS/...`, and if you like `val/CLASS/...` and `test/CLASS/...`; without `val`, a part of the
    training images is kept for validation, and without `test` there is no test. Classes are the folders of `train` in
    the order of their names.

    Args:
        kwargs: As in `FileImages`.

    Raises:
        InputError: A folder is missing, has no images, or `val` or `test` has a class that `train` lacks.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = class_folders(self.root / "train")

    def divide(self) -> tuple[Dataset[Any], Dataset[Any]]:
        if not (self.root / "val").is_dir():
            return super().divide()
        return self.load("train"), files_of_classes(self.root / "val", self.class_names)

    def found(self) -> Path | None:
        return self.root

    def parts(self) -> dict[str, LabelledFiles]:
        present = [split for split in ("train", "val", "test") if (self.root / split).is_dir()]
        return {split: files_of_classes(self.root / split, self.class_names) for split in present}

    def load(self, split: Split) -> LabelledFiles:
        if split == "test" and not (self.root / "test").is_dir():
            raise InputError(f"{self.root} has no folder 'test': use 'wavemix-pl validate' for the validation images")
        return files_of_classes(self.root / split, self.class_names)


def class_folders(folder: Path) -> list[str]:
    """Names of the folders within a folder, in order.

    Raises:
        InputError: There is none.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not names:
        raise InputError(f"{folder}: no such folder, or no class folders in it: pass --data.root=FOLDER")
    return names


def files_of_classes(folder: Path, classes: Sequence[str]) -> LabelledFiles:
    """All image files below the folders of classes, in order.

    Raises:
        InputError: No images, or a class that is not among `classes`.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((name for name in class_folders(folder) if name not in numbers), None)
    if unknown:
        raise InputError(f"{folder / unknown}: the training images have no such class")
    present = {name: number for name, number in numbers.items() if (folder / name).is_dir()}
    files = make_dataset(str(folder), present, extensions=IMG_EXTENSIONS, allow_empty=True)
    if not files:
        raise InputError(f"{folder}: no image files ({', '.join(IMG_EXTENSIONS)})")
    return LabelledFiles(files)
