"""Image files in folders of classes: anyone's own, and the large data sets that come so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data.augmentation import Transform
from wavemix_pl.data.base import About, ImageDataModule, Split
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
        return open_rgb(self.paths[index]), self.targets[index]


def open_rgb(path: str) -> Tensor:
    """The pixels (3, H, W) uint8 of an image file."""
    try:
        with Image.open(path) as image:
            pixels: Tensor = TF.pil_to_tensor(image.convert("RGB"))
            return pixels
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's words for a damaged file
        raise InputError(f"{path}: cannot be read as an image ({error})") from None


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

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        scale = max(self.size[0] / height, self.size[1] / width)
        covering = [max(round(height * scale), self.size[0]), max(round(width * scale), self.size[1])]
        cropped: Tensor = TF.center_crop(TF.resize(image, covering, antialias=True), list(self.size))
        return cropped


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

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and self.train_set is None and (self.root / "val").is_dir():
            self.train_set = files_of_classes(self.root / "train", self.class_names)
            self.val_set = files_of_classes(self.root / "val", self.class_names)
        super().setup(stage)

    def found(self) -> Path | None:
        return self.root

    def load(self, split: Split) -> LabelledFiles:
        if split == "test" and not (self.root / "test").is_dir():
            raise InputError(f"{self.root} has no folder 'test': use 'wavemix-pl validate' for the validation images")
        return files_of_classes(self.root / split, self.class_names)


class PublishedFolders(FileImages):
    """A published data set in folders of classes. Its official validation images are what `test` uses.

    Args:
        kwargs: As in `FileImages`.

    Raises:
        InputError: The folders are not there, or not all classes are.
    """

    about: ClassVar[About]
    parents: ClassVar[Sequence[str]]  # within root, where the folders of the splits may lie
    folders: ClassVar[Mapping[Split, Sequence[str]]]  # names under which a split is known

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        train = self._folder("train")
        if train is None or self._folder("test") is None:
            names = " and ".join(self.folders[split][0] for split in ("train", "test"))
            raise InputError(f"no {type(self).__name__} in {self.root}, which should hold {names}: {self.about.how}")
        self.class_names = self._classes(train)
        if len(self.class_names) != self.about.classes:
            raise InputError(
                f"{train} has {len(self.class_names)} class folders instead of {self.about.classes}: for a part of the "
                "data set take --data=ImageFolderData"
            )

    def found(self) -> Path | None:
        return self._folder("train")

    def load(self, split: Split) -> LabelledFiles:
        folder = self._folder(split)
        assert folder is not None  # seen to in __init__
        return files_of_classes(folder, self.class_names)

    def _classes(self, train: Path) -> list[str]:
        return class_folders(train)

    def _folder(self, split: Split) -> Path | None:
        places = (self.root / parent / name for parent in self.parents for name in self.folders[split])
        return next((place for place in places if place.is_dir()), None)


class ImageNet(PublishedFolders):
    """ImageNet-1k: 1,281,167 + 50,000 images in 1,000 classes (Russakovsky et al. 2015).

    `root`, or its folder `imagenet`, holds `train/WNID/...` and `val/WNID/...`, as `torchvision.datasets.ImageNet`
    unpacks the archives. Classes are named by their WordNet ids.

    Args:
        kwargs: As in `FileImages`.
    """

    parents = (".", "imagenet")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {"train": ("train",), "test": ("val",)}
    about = About(
        *(1_281_167, 50_000, 1000), licence="non-commercial research", source="https://www.image-net.org", size_gb=144,
        note="log-in needed",
        how="get the archives (image-net.org) and unpack them with torchvision.datasets.ImageNet(FOLDER)",
    )  # fmt: skip


class INaturalist(PublishedFolders):
    """iNaturalist 2021 mini: 500,000 + 100,000 images in 10,000 classes.

    `root` holds `2021_train_mini` and `2021_valid`, as torchvision names them, or `train_mini` and `val`, as
    they are in the archives.

    Args:
        kwargs: As in `FileImages`.
    """

    parents = (".", "inaturalist")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {
        "train": ("2021_train_mini", "train_mini"),
        "test": ("2021_valid", "val"),
    }
    about = About(
        *(500_000, 100_000, 10_000), licence="non-commercial research",
        source="https://github.com/visipedia/inat_comp/tree/master/2021", size_gb=50,
        how="get train_mini.tar.gz and val.tar.gz from https://github.com/visipedia/inat_comp/tree/master/2021",
    )  # fmt: skip


class Places365(PublishedFolders):
    """Places365-Standard: 1,803,460 + 36,500 scenes in 365 classes (Zhou et al. 2017).

    `root`, or its folder `places365_standard`, holds `train/CLASS/...` and `val/CLASS/...`, as in the archives with
    folders of classes; their images are the small ones, of 256x256, or the large ones.

    Args:
        image_size: As in `FileImages`; the paper's text has 256x256, its Table 7 224x224.
        kwargs: As in `FileImages`.
    """

    parents = (".", "places365_standard")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {"train": ("train",), "test": ("val",)}
    about = About(
        *(1_803_460, 36_500, 365), licence="research", source="http://places2.csail.mit.edu", size_gb=24,
        note="small images",
        how="get places365standard_easyformat.tar (small) or the large images from http://places2.csail.mit.edu",
    )  # fmt: skip

    def __init__(self, image_size: tuple[int, int] = (256, 256), **kwargs: Any) -> None:
        super().__init__(image_size=image_size, **kwargs)


class TinyImageNet(PublishedFolders):
    """Tiny ImageNet: 100,000 + 10,000 images of 64x64 in 200 classes.

    `root`, or its folder `tiny-imagenet-200`, is as unpacked: validation images lie in one folder, and
    `val_annotations.txt` tells their classes.

    Args:
        class_order: "sorted" by WordNet id; "wnids" as in `wnids.txt`, which the authors' published weights follow.
        image_size: As in `FileImages`.
        kwargs: As in `FileImages`.
    """

    parents = (".", "tiny-imagenet-200")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {"train": ("train",), "test": ("val",)}
    about = About(*(100_000, 10_000, 200), licence="none stated", source="http://cs231n.stanford.edu", size_gb=0.24,
        how="get and unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    )  # fmt: skip

    def __init__(
        self,
        class_order: Literal["sorted", "wnids"] = "sorted",
        image_size: tuple[int, int] = (64, 64),
        **kwargs: Any,
    ) -> None:
        self.class_order = class_order
        super().__init__(image_size=image_size, **kwargs)

    def load(self, split: Split) -> LabelledFiles:
        if split == "train":
            return super().load(split)
        folder = self._folder("test")
        assert folder is not None  # seen to in __init__
        numbers, files = {name: number for number, name in enumerate(self.class_names)}, []
        for line in _lines(folder / "val_annotations.txt"):
            name, wnid, *_ = [*line.split("\t"), ""]
            if wnid not in numbers or not (folder / "images" / name).is_file():
                raise InputError(f"{folder / 'val_annotations.txt'}: no such class or image: {line!r}")
            files.append((str(folder / "images" / name), numbers[wnid]))
        return LabelledFiles(files)

    def _classes(self, train: Path) -> list[str]:
        found = class_folders(train)
        if self.class_order == "sorted":
            return found
        listed = _lines(train.parent / "wnids.txt")
        if sorted(listed) != found:
            raise InputError(f"{train.parent / 'wnids.txt'} and the folders of {train} name different classes")
        return listed


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
    unknown = next((name for name in class_folders(folder) if name not in set(classes)), None)
    if unknown:
        raise InputError(f"{folder / unknown}: the training images have no such class")
    numbers = {name: number for number, name in enumerate(classes)}
    present = {name: number for name, number in numbers.items() if (folder / name).is_dir()}
    files = make_dataset(str(folder), present, extensions=IMG_EXTENSIONS, allow_empty=True)
    if not files:
        raise InputError(f"{folder}: no image files ({', '.join(IMG_EXTENSIONS)})")
    return LabelledFiles(files)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): unpack the archive anew") from None
