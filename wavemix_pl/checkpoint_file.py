"""The files of a run's checkpoints: which there are, and whether they still are what was written."""

from __future__ import annotations

import zipfile
from pathlib import Path

from wavemix_pl.errors import InputError
from wavemix_pl.models.weights import load_checkpoint

LAST, PREVIOUS, BEST = "last", "previous", "best"
# from which a run goes on that is asked for a checkpoint of this name: the first that is there and whole
GO_ON_FROM = {LAST: (LAST, PREVIOUS, BEST), BEST: (BEST,)}


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None where it is what was written: its checksums are compared, it is read.

    Its tensors' checksums stand in the file (torch.save writes a zip archive), and torch.load does not look at them.
    """
    try:
        with path.open("rb") as file:
            archive = file.read(2) == b"PK"  # older files of torch.save are none, and have no checksums
        if archive:
            with zipfile.ZipFile(path) as entries:
                part = entries.testzip()
            if part is not None:
                return f"the checksum of {part.partition('/')[2]} is another"
        load_checkpoint(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # whatever a damaged archive makes of its reader
        return f"no end, or no archive: {error}" if isinstance(error, zipfile.BadZipFile) else type(error).__name__
    return None


def refuse_damage(path: Path) -> None:
    """Refuses a damaged checkpoint that was asked for, and names one beside it that is whole.

    Raises:
        InputError: It is damaged.
    """
    wrong = path.is_file() and damage(path)
    if wrong:
        beside = (path.with_name(f"{name}.ckpt") for name in GO_ON_FROM[LAST])
        whole = next((file for file in beside if file != path and file.is_file() and not damage(file)), None)
        raise InputError(f"{path}: {wrong}" + (f"; {whole} is whole, use it instead" if whole else ""))
