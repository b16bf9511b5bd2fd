"""What the verb `figures` is given to draw from: a trained model, its data, a photograph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from wavemix_pl.errors import InputError
from wavemix_pl.export_source import Source, read_source
from wavemix_pl.figures.subbands import photograph, subbands

if TYPE_CHECKING:
    from wavemix_pl.data.base import ImageDataModule

LEVELS = 3  # of the photograph's sub-bands
_KINDS = {"classification": "classifier", "segmentation": "segmenter"}
SHIPPED = {"classification": "fashion-mnist/wavemix-lite-8-5", "segmentation": "fashion-scenes/wavemix-24-3-level-2"}


@dataclass(frozen=True)
class Given:
    """What there is to draw from; all of it was read.

    Attributes:
        source: The trained model that was given, or None.
        called: What the user called it.
        data: Name of the data set whose test images are shown, or None for what comes with the package.
        root: Folder of data sets.
        photograph: (1, H, W), 0 to 1.
        seed: Of random weights and filters.
    """

    source: Source | None
    called: str
    data: str | None
    root: str
    photograph: Tensor
    seed: int

    def trained(self, task: str) -> Source:
        """The trained model; where none was given, one that comes with the package.

        Raises:
            InputError: It is one for another task; or data were given without a model of them.
        """
        how = "pass --ckpt_path=RUN/checkpoints/best.ckpt, or --weights=NAME and --data=NAME"
        if self.source is None and self.data:
            raise InputError(f"needs a {_KINDS[task]} trained on {self.data}: {how}")
        if self.source is None:
            return read_source(SHIPPED[task])
        if self.source.model.task != task:
            raise InputError(
                f"needs a trained {_KINDS[task]}, and {self.called} holds a {_KINDS[self.source.model.task]}: {how}"
            )
        return self.source

    @property
    def run(self) -> Path:
        """Directory of the run whose checkpoint was given.

        Raises:
            InputError: It is not known.
        """
        folder = Path(self.called).parent
        if self.source is None or folder.name != "checkpoints":
            raise InputError("needs the checkpoint of a run: pass --ckpt_path=RUN/checkpoints/best.ckpt")
        return folder.parent

    def test_images(self, source: Source, batch_size: int) -> tuple[ImageDataModule, Iterator[tuple[Tensor, Tensor]]]:
        """The data of a model, and batches of its test images, normalised, with their targets.

        Raises:
            InputError: It is not known which data, they are not there, or not those of the model.
        """
        from wavemix_pl.data.matching import matching_data, shipped_data  # imports lightning, which takes seconds

        name = self.data or shipped_data(source.preprocessing)
        if name is None:
            raise InputError(f"needs the images that {self.called} was trained on: pass --data=NAME --root=FOLDER")
        module = matching_data(name, self.root, source.preprocessing, batch_size)
        model = source.model
        for what, here, there in (
            ("classes", module.num_classes, model.num_classes),
            ("channels", module.in_channels, model.config.in_channels),
        ):
            if here != there:
                raise InputError(f"{name} has {here} {what}, {self.called} {there}: choose the data of the training")
        module.setup("test")
        return module, (module.on_after_batch_transfer(batch, 0) for batch in module.test_dataloader())


def read_given(
    ckpt_path: str | None, weights: str | None, data: str | None, root: str, image: str | None, seed: int
) -> Given:
    """Reads all that was named, so that what is wrong with it is found before anything is drawn.

    Raises:
        InputError: It cannot be used.
    """
    if ckpt_path and weights:
        raise InputError(f"--ckpt_path={ckpt_path} and --weights={weights}: give one of them")
    called = ckpt_path or weights or ""
    photo = photograph(image)
    try:
        subbands(photo, LEVELS)
    except InputError as error:
        raise InputError(f"--image={image}: {error}") from None
    return Given(read_source(called) if called else None, called, data, root, photo, seed)
