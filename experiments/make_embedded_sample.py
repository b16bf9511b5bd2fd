"""Makes the sample of Fashion-MNIST that comes with wavemix_pl, from the full set.

    python experiments/make_embedded_sample.py SOURCE [TARGET]

SOURCE holds the four IDX files, as Debian's package `dataset-fashion-mnist` installs them in
/usr/share/datasets/fashion-mnist. 600 training and 100 test images of each class are drawn with seed 0, in the order of
the source; training images that equal a drawn test image are left out. The images are the same on every machine.
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import torch
from torch import Tensor

from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.data.mnist import load_idx_images

PER_CLASS = {"train": 600, "test": 100}
NAMES = {"train": "train", "test": "t10k"}


def sample(labels: Tensor, allowed: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Indices of `per_class` allowed images of each class, ascending."""
    chosen = []
    for label in labels.unique():
        candidates = ((labels == label) & allowed).nonzero().flatten()
        chosen.append(candidates[torch.randperm(len(candidates), generator=generator)[:per_class]])
    return torch.cat(chosen).sort().values


def write_idx(path: Path, values: Tensor) -> None:
    """Writes unsigned bytes as gzipped IDX, without name and time, so that the bytes are always the same."""
    header = struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape)
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file:
        file.write(header + values.to(torch.uint8).numpy().tobytes())


def main(source: Path, target: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    taken: set[bytes] = set()
    for split in ("test", "train"):
        full = load_idx_images(source, split, num_classes=10)
        allowed = torch.tensor([image.numpy().tobytes() not in taken for image in full.images])
        chosen = sample(full.targets, allowed, PER_CLASS[split], generator)
        taken |= {image.numpy().tobytes() for image in full.images[chosen]}
        write_idx(target / f"{NAMES[split]}-images-idx3-ubyte.gz", full.images[chosen, 0])
        write_idx(target / f"{NAMES[split]}-labels-idx1-ubyte.gz", full.targets[chosen])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else EmbeddedFashionMNIST.folder)
