"""The large data sets that come in folders of classes: ImageNet, iNaturalist, Places365, Tiny ImageNet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    unpacks the archives; or `root` is what Kaggle has, where validation images lie in one folder and
    `LOC_val_solution.csv` tells their classes. Classes are named by their WordNet ids.

    Args:
        kwargs: As in `FileImages`.
    """

    parents = (".", "imagenet", "ILSVRC/Data/CLS-LOC")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {"train": ("train",), "test": ("val",)}
    about = About(
        *(1_281_167, 50_000, 1000), licence="non-commercial research", source="https://www.image-net.org", size_gb=144,
        note="log-in needed",
        how="get the archives (image-net.org) and unpack them with torchvision.datasets.ImageNet(FOLDER)",
    )  # fmt: skip

    def load(self, split: Split) -> LabelledFiles:
        folder = self._folder(split)
        assert folder is not None  # seen to in __init__
        if split == "train" or any(path.is_dir() for path in folder.iterdir()):
            return super().load(split)
        listed = self.root / "LOC_val_solution.csv"
        entries = (line.split(",", 1) for line in _lines(listed)[1:])  # below the heading: image, "WNID box ..."
        return _listed(
            listed, folder, self.class_names, ((f"{name}.JPEG", boxes.split()[0]) for name, boxes in entries)
        )


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
    folders of classes; or `data_256_standard` and `val_256`, or the large images in `data_large_standard` and
    `val_large`, with the lists of the development kit beside them, as `torchvision.datasets.Places365` unpacks them.

    Args:
        image_size: As in `FileImages`; the paper's text has 256x256, its Table 7 224x224.
        kwargs: As in `FileImages`.
    """

    parents = (".", "places365_standard")
    folders: ClassVar[Mapping[Split, Sequence[str]]] = {
        "train": ("train", "data_256_standard", "data_large_standard"),
        "test": ("val", "val_256", "val_large"),
    }
    about = About(
        *(1_803_460, 36_500, 365), licence="research", source="http://places2.csail.mit.edu", size_gb=24,
        note="small images",
        how="get places365standard_easyformat.tar (small) or the large images from http://places2.csail.mit.edu",
    )  # fmt: skip

    def __init__(self, image_size: tuple[int, int] = (256, 256), **kwargs: Any) -> None:
        super().__init__(image_size=image_size, **kwargs)

    def load(self, split: Split) -> LabelledFiles:
        folder = self._folder(split)
        assert folder is not None  # seen to in __init__
        if folder.name in ("train", "val"):
            return super().load(split)
        listed = folder.with_name("places365_train_standard.txt" if split == "train" else "places365_val.txt")
        entries = (line.split() for line in _lines(listed))
        named = ((name.lstrip("/"), self.class_names[int(number)]) for name, number in entries)
        return _listed(listed, folder, self.class_names, named)

    def _classes(self, train: Path) -> list[str]:
        """In the kit's order, named as the folders are: "/a/alley" is alley, "/b/bow_window/indoor" gets a dash."""
        if train.name == "train":
            return super()._classes(train)
        numbered = (line.split() for line in _lines(train.with_name("categories_places365.txt")))
        return [name[3:].replace("/", "-") for name, _ in sorted(numbered, key=lambda entry: int(entry[1]))]


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
        listed = folder / "val_annotations.txt"
        entries = ((*line.split("\t"), "")[:2] for line in _lines(listed))
        return _listed(listed, folder / "images", self.class_names, entries)

    def _classes(self, train: Path) -> list[str]:
        found = class_folders(train)
        if self.class_order == "sorted":
            return found
        listed = _lines(train.parent / "wnids.txt")
        if sorted(listed) != found:
            raise InputError(f"{train.parent / 'wnids.txt'} and the folders of {train} name different classes")
        return listed


def _listed(path: Path, folder: Path, classes: Sequence[str], entries: Iterable[Sequence[str]]) -> LabelledFiles:
    """The images that a list names with their classes.

    Raises:
        InputError: A line that is none, or a class or image that is not there.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    present = {entry.path for entry in _files(folder)}
    files = []
    try:
        for name, kind in entries:
            if kind not in numbers or str(folder / name) not in present:
                raise InputError(f"{path}: no such class or image: {name} {kind}")
            files.append((str(folder / name), numbers[kind]))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: line {len(files) + 1} is damaged ({error}): unpack the archive anew") from None
    return LabelledFiles(files)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Of a folder and those in it: to list them is faster than to ask for each."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files(Path(entry.path))
        else:
            yield entry


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): unpack the archive anew") from None
