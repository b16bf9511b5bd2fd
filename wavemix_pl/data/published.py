"""The large data sets that come in folders of classes: ImageNet, iNaturalist, Places365, Tiny ImageNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from wavemix_pl.data.about import About
from wavemix_pl.data.base import Split
from wavemix_pl.data.folder import FileImages, LabelledFiles, class_folders, files_of_classes
from wavemix_pl.errors import InputError


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


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): unpack the archive anew") from None
