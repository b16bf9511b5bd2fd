"""LightningDataModules, one file per source family."""

from wavemix_pl.data.base import ImageDataModule
from wavemix_pl.data.cifar import CIFAR10, CIFAR100
from wavemix_pl.data.cityscapes import Cityscapes
from wavemix_pl.data.embedded import EmbeddedFashionMNIST
from wavemix_pl.data.fashion_scenes import FashionScenes
from wavemix_pl.data.files import ImageFiles
from wavemix_pl.data.folder import ImageFolderData
from wavemix_pl.data.galaxy10 import Galaxy10
from wavemix_pl.data.mnist import EMNIST, MNIST, FashionMNIST
from wavemix_pl.data.pairs import MaskFolderData
from wavemix_pl.data.published import ImageNet, INaturalist, Places365, TinyImageNet
from wavemix_pl.data.shards import ShardData
from wavemix_pl.data.svhn import SVHN

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "MNIST",
    "SVHN",
    "Cityscapes",
    "EmbeddedFashionMNIST",
    "FashionMNIST",
    "FashionScenes",
    "Galaxy10",
    "INaturalist",
    "ImageDataModule",
    "ImageFiles",
    "ImageFolderData",
    "ImageNet",
    "MaskFolderData",
    "Places365",
    "ShardData",
    "TinyImageNet",
]
