"""Downloads that are whole or absent."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.errors import InputError


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A temporary folder inside `root`; what is in it moves to `root` when the body has ended well, else it vanishes.

    torchvision's data sets download into it: they verify checksums. Members of archives that would leave the folder
    are refused. What a killed process leaves is called `.partial-...`, and nothing looks for data there.

    Raises:
        InputError: The download failed, a checksum is wrong, or Python is too old to unpack safely.
    """
    if not hasattr(tarfile, "data_filter"):
        raise InputError("downloads are unpacked safely from Python 3.10.12 and 3.11.4 on: take a newer Python")
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    kept = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # the default from Python 3.14 on
    try:
        yield folder
        _move(folder, root)
    except (OSError, RuntimeError, tarfile.TarError, EOFError) as error:  # torchvision's words for a bad download
        if isinstance(error, InputError):
            raise
        raise InputError(f"the download to {root} failed, nothing was kept: {' '.join(str(error).split())}") from error
    finally:
        tarfile.TarFile.extraction_filter = kept
        shutil.rmtree(folder, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Moves what is in a folder into another, which may have folders of the same names."""
    for path in sorted(source.iterdir()):
        goal = target / path.name
        if path.is_dir() and goal.is_dir():
            _move(path, goal)
        else:
            path.replace(goal)


class DownloadedImages(ImageDataModule):
    """Images that torchvision can download.

    Args:
        root: Folder of data sets.
        download: Whether to download what is not found.
        kwargs: As in `ImageDataModule`.
    """

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.download = Path(root).expanduser(), download

    def prepare_data(self) -> None:
        if self.found() is None and self.download:
            with staged(self.root) as folder:
                self.download_to(folder)

    @abstractmethod
    def download_to(self, folder: Path) -> None:
        """Downloads all files, laid out as they will be in `root`."""
