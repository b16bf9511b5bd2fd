"""LightningDataModules, one file per source family."""

from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.data.files import ImageFiles
from wavemix_pl.data.mnist import FashionMNIST

__all__ = ["EmbeddedFashionMNIST", "FashionMNIST", "ImageDataModule", "ImageFiles"]
