"""What every image data module shares: split, loaders, and the work done on whole batches."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset, default_collate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from wavemix_pl.data.about import About
from wavemix_pl.data.augmentation import (
    PLAIN,
    Augment,
    Regularization,
    Transform,
    TransformedImages,
    flip,
    mix,
    single_image_transform,
)
from wavemix_pl.data.manifest import Manifest, find_manifest
from wavemix_pl.data.readable import without_unreadable
from wavemix_pl.data.training_loader import TrainingLoader, TrainingSampler, prepare_worker
from wavemix_pl.errors import InputError

Split = Literal["train", "test"]


class ImageDataModule(L.LightningDataModule):
    """Images (B, C, H, W) uint8 from the loaders, float32 and normalised on the device, with their targets.

    Targets are classes (B,) int64, or masks (B, H, W) int64 in which `void_index` marks pixels without a class.

    A part of the training images, chosen by `split_seed` alone, is kept for validation. The order of the training
    images depends on the seed of the run and on the epoch alone: not on the number of workers, nor on what was
    trained before a resume. A run that goes on in the middle of an epoch loads only what that epoch has not seen yet.

    Args:
        batch_size: Images per optimizer step over all devices together; each device gets an equal share.
        num_workers: Processes that load. 0 is the fastest for data that lies in memory.
        val_fraction: Share of the training images that is kept for validation.
        split_seed: Chooses which.
        augment: Of training images: "none" (the paper's default), "flip" (horizontal, half of them), "trivial"
            (TrivialAugment, the star of the paper's Table 3) or "rand" (RandAugment); the last two for images without
            masks.
        regularization: Flips beside those, random erasing, mixup, CutMix; for images without masks.
        image_size: (H, W) to which images are resized, without regard to their proportions. Default: their own size.
        mean: Per channel, of images scaled to 0...1, in the place of the data set's: weights that were trained with
            another need it; those without normalisation a mean of [0, 0, 0] and a std of [1, 1, 1].
        std: Likewise.
        skip_unreadable: Whether images that cannot be read are left out, with a warning that names them. For that all
            are opened before the run begins. As it is, the first of them ends the run.
        validate_on_test: Whether the test images take the validation images' part and all training images train: the
            published scripts' habit, by which the best epoch is chosen on the test set. For comparison only.

    Attributes:
        class_names: In the order of the targets.
        in_channels: Channels of an image.
        image_size: (H, W) in pixels.
        void_index: Of pixels without a class, in masks.
        colors: (red, green, blue) of each class, 0 to 255, for pictures of masks; None where there are no masks.
        label_ids: What is written for each class into files of masks, or None for the class's own number.
        about: Size, licence and source; None for what is no published data set.
    """

    class_names: Sequence[str]
    in_channels: ClassVar[int] = 3
    image_size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    void_index: int = 255
    colors: Sequence[tuple[int, int, int]] | None = None
    label_ids: Sequence[int] | None = None
    about: ClassVar[About | None] = None

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        augment: Augment = "none",
        regularization: Regularization = PLAIN,
        image_size: tuple[int, int] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        skip_unreadable: bool = False,
        validate_on_test: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise InputError(
                f"batch_size must be at least 1 and num_workers at least 0, got {batch_size}, {num_workers}"
            )
        if not -(2**63) <= split_seed < 2**63:
            raise InputError(f"split_seed must be a number of at most 63 bits, got {split_seed}")
        if not 0 < val_fraction < 1:
            raise InputError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
        if image_size is not None:
            if min(image_size) < 1:
                raise InputError(f"image_size must be two positive numbers of pixels, got {image_size}")
            self.image_size = (image_size[0], image_size[1])  # a list, where it comes from a config
        self._resize = image_size and self.image_size
        self.mean, self.std = mean or self.mean, std or self.std
        if not len(self.mean) == len(self.std) == self.in_channels or min(self.std) <= 0:
            raise InputError(
                f"mean and std need a number for each channel (here {self.in_channels}), std above 0; got "
                f"{list(self.mean)} and {list(self.std)}"
            )
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.augment, self.regularization = augment, regularization
        self.skip_unreadable, self.validate_on_test = skip_unreadable, validate_on_test
        self.train_set: Dataset[Any] | None = None
        self.val_set: Dataset[Any] | None = None
        self.test_set: Dataset[Any] | None = None

    @abstractmethod
    def load(self, split: Split) -> Dataset[Any]:
        """All images of a split, as the data set's makers divided it. Items are (image uint8, target)."""

    def found(self) -> Path | None:
        """Where the data lies, or None where it is missing."""
        return None

    @property
    def generated(self) -> Manifest | None:
        """What is said of the images where they are generated; None where they are real."""
        marked = self._marked()
        return marked and marked[1]

    def _marked(self) -> tuple[Path, Manifest] | None:
        found = self.found()
        return find_manifest(found) if found else None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a prediction needs to know of the data, in plain values."""
        return {
            "class_names": list(self.class_names),
            "in_channels": self.in_channels,
            "image_size": list(self.image_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "void_index": self.void_index,
            "colors": self.colors and [list(color) for color in self.colors],
            "label_ids": self.label_ids and list(self.label_ids),
        }

    def setup(self, stage: str) -> None:
        if marked := self._marked():
            rank_zero_warn(f"GENERATED IMAGES, not {marked[1].dataset}: no score on them is a result ({marked[0]})")
        if stage in ("fit", "validate") and self.train_set is None:
            if self.validate_on_test:
                rank_zero_info("validation on the test images, for comparison only: the best epoch is chosen on them")
                self.train_set, self.val_set = self.load("train"), self.load("test")
            else:
                self.train_set, self.val_set = self.divide()
            self.train_set = self._usable(self.train_set, "training")
            self.val_set = self._usable(self.val_set, "validation")
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = self._usable(self.load("test"), "test")

    def _usable(self, dataset: Dataset[Any], name: str) -> Dataset[Any]:
        return without_unreadable(dataset, f"{name} images") if self.skip_unreadable else dataset

    def divide(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """The images that train, and those that are kept for validation."""
        return self._split(self.load("train"))

    def _split(self, dataset: Any) -> tuple[Subset[Any], Subset[Any]]:
        total = len(dataset)
        held_out = round(total * self.val_fraction)
        if not 0 < held_out < total:
            raise InputError(f"val_fraction {self.val_fraction} of {total} images leaves {held_out} for validation")
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.split_seed)).tolist()
        return Subset(dataset, sorted(order[held_out:])), Subset(dataset, sorted(order[:held_out]))

    def train_dataloader(self) -> DataLoader[Any]:
        world, rank = self._world()
        # seed_everything leaves the run's seed in this variable; Lightning's own samplers read it there as well.
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        dataset, transform = self._loaded(self.train_set), self.transform(training=True)
        if transform:
            dataset = TransformedImages(dataset, transform, seed)
        sampler = self.make_sampler(dataset, world, rank, seed, self._seen, tells_epoch=transform is not None)
        # drop_last: batch norm cannot be trained on a last batch of a single image.
        return self._loader(dataset, sampler, TrainingLoader, drop_last=len(sampler) >= self.batch_size // world)

    def make_sampler(self, dataset: Dataset[Any], *arguments: Any, **more: Any) -> TrainingSampler:
        """The order of the training images; for its arguments see `TrainingSampler`."""
        return TrainingSampler(dataset, *arguments, **more)

    def _seen(self) -> int:
        """How many of this device's images an epoch has seen already; more than 0 where a run goes on in its middle."""
        if self.trainer is None or not self.trainer.fit_loop.is_resuming:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready * (self.batch_size // self._world()[0])

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader(self.val_set)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader(self.test_set)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.test_dataloader()

    def transform(self, training: bool) -> Transform | None:
        """What is done to single images where they are loaded: images of a data set must leave it in one size."""
        return single_image_transform(self.augment, self.regularization.erasing, self.mean) if training else None

    def _evaluation_loader(self, dataset: Dataset[Any] | None) -> DataLoader[Any]:
        dataset, transform = self._loaded(dataset), self.transform(training=False)
        dataset = TransformedImages(dataset, transform) if transform else dataset
        # each image on one rank and once, so that metrics over uneven batches are exact
        return self._loader(dataset, UnrepeatedDistributedSampler(dataset, *self._world(), shuffle=False))

    def _loader(
        self,
        dataset: Any,
        sampler: DistributedSampler[Any],
        kind: type[DataLoader[Any]] = DataLoader,
        drop_last: bool = False,
    ) -> DataLoader[Any]:
        world, rank = self._world()
        if self.batch_size % world:
            raise InputError(f"batch_size {self.batch_size} does not divide by the {world} devices")
        return kind(
            dataset,
            batch_size=self.batch_size // world,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_collate,
            drop_last=drop_last,
            worker_init_fn=partial(prepare_worker, rank=rank),
            generator=torch.Generator().manual_seed(0),  # else each epoch would draw from the generator of the model
        )

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loaded(self, dataset: Any) -> Dataset[Any]:
        if dataset is None:
            raise RuntimeError("call setup() first")
        world, _ = self._world()
        if len(dataset) < world:
            raise InputError(f"{world} devices need as many images, here are {len(dataset)}: lower trainer.devices")
        return dataset  # type: ignore[no-any-return]  # whatever has a length

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """The work on whole batches: resizing, scaling, normalisation; flips and mixing of training images."""
        images, targets = batch
        training = self.trainer is not None and self.trainer.training
        if self._resize and images.shape[-2:] != self._resize:
            images = TF.resize(images, list(self._resize), antialias=True)
            if targets.ndim == 3 and training:  # scores are computed at the size of the masks
                targets = TF.resize(targets, list(self._resize), InterpolationMode.NEAREST)
        if training and (self.augment == "flip" or self.regularization.flip):
            images, targets = flip(images, targets)
        images = self.normalize(images)
        if training and targets.ndim == 1:
            images, targets = mix(
                images, targets, self.num_classes, self.regularization.mixup, self.regularization.cutmix
            )
        return images, targets

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 -> float32 with the data set's mean and standard deviation taken out."""
        scaled = TF.to_dtype(images, torch.float32, scale=True)
        normal: Tensor = TF.normalize(scaled, list(self.mean), list(self.std))
        return normal


def _collate(batch: Any) -> Any:
    """Leaves what `__getitems__` has batched already; stacks single items."""
    return batch if isinstance(batch, tuple) else default_collate(batch)
