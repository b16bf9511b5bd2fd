"""LightningDataModules, one file per source family."""

from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.cityscapes import Cityscapes
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.data.fashion_scenes import FashionScenes
from wavemix_pl.data.files import ImageFiles
from wavemix_pl.data.mnist import FashionMNIST

__all__ = ["Cityscapes", "EmbeddedFashionMNIST", "FashionMNIST", "FashionScenes", "ImageDataModule", "ImageFiles"]
