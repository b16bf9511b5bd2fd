"""The peers of the paper."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from wavemix_pl.errors import InputError
from wavemix_pl.models.baselines import build_model
from wavemix_pl.modules import ClassificationModule

pytest.importorskip("timm", reason="comes with the extra [baselines]")
pytest.importorskip("vit_pytorch", reason="comes with the extra [baselines]")

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def millions(model: nn.Module, *names: str) -> float:
    """Parameters in millions, all or those of the names, such as weight."""
    chosen = (p for path, p in model.named_parameters() if not names or path.rpartition(".")[2] in names)
    return sum(parameter.numel() for parameter in chosen) / 1e6


@pytest.mark.parametrize("size", [(32, 64), (30, 61)])
@pytest.mark.parametrize("patch_size", [4, 7])
def test_convmixer_gives_logits_at_the_size_of_the_images(size: tuple[int, int], patch_size: int) -> None:
    model = build_model("ConvMixer-16/2", 5, "segmentation", {"in_channels": 1, "patch_size": patch_size})
    logits = model(torch.randn(2, 1, *size))
    assert logits.shape == (2, 5, *size)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_backbone_is_timms() -> None:
    """Stem and blocks have as many parameters as timm's model of the same size without its classifier."""
    from timm.models.convmixer import ConvMixer

    model = build_model("ConvMixer-32/3", 19, "segmentation", {})
    backbone = sum(p.numel() for part in (model.stem, model.blocks) for p in part.parameters())
    assert backbone == sum(p.numel() for p in ConvMixer(32, 3, 7, 4, num_classes=0).parameters())


@pytest.mark.parametrize(
    ("variant", "printed"),
    [
        ("resnet18", 11.7),
        ("resnet34", 21.8),
        ("resnet50", 25.6),
        ("resnet101", 44.5),
        ("resnet152", 60.2),
        ("mobilenetv3_small_100", 2.5),
        ("mobilenetv3_large_100", 5.5),
        ("mobilenetv3_large_075", 4.0),
        ("vit_base_patch16_224", 86.6),
        ("vit_base_patch32_224", 88.2),
        ("mixer_b16_224", 59.9),
        ("poolformer_s12", 11.9),
        ("convmixer_1024_20_ks9_p14", 24.4),
        ("ConvMixer-512/12", 4.2),
        ("ConvMixer-512/16", 5.4),
        ("ConvMixer-1024/12", 14.6),
    ],
)
def test_parameters_of_tables_4_and_10(variant: str, printed: float) -> None:
    with torch.device("meta"):
        model = build_model(variant, 1000, "classification", {})
    assert round(millions(model), 1) == printed


@pytest.mark.parametrize(
    ("variant", "overrides", "num_classes", "printed", "counted"),
    [
        ("ViT-128/4x4", {"img_size": 32}, 10, 0.53, 0.661770),
        ("CCT-128/4x4", {"img_size": 32}, 10, 0.91, 1.036619),
        ("CCT-128/4x4", {"img_size": 64, "stride": 2}, 10, 0.91, 1.036619),
        ("CvT-128/4x4", {}, 200, 1.12, 1.127112),
        ("MLP-Mixer-512/8", {"img_size": 32}, 10, 2.42, 2.415626),  # the paper: 2.41
    ],
)
def test_parameters_of_table_11(
    variant: str, overrides: dict[str, Any], num_classes: int, printed: float, counted: float
) -> None:
    """The paper's number is what torchsummary counts: the parameters that a layer calls weight or bias."""
    with torch.device("meta"):
        model = build_model(variant, num_classes, "classification", overrides)
    assert millions(model) == counted
    assert round(millions(model, "weight", "bias"), 2) == printed


@pytest.mark.parametrize(
    ("variant", "overrides", "size"),
    [
        ("resnet18", {}, 32),
        ("mobilenetv3_small_050", {}, 32),
        ("vit_tiny_patch16_224", {"img_size": 32}, 32),
        ("poolformer_s12", {}, 32),
        ("ConvMixer-16/2", {}, 32),
        ("MLP-Mixer-16/2", {"img_size": 32}, 32),
        ("ViT-16/2x4", {"img_size": 8}, 8),
        ("ViT-16/2×4", {"img_size": 16, "patch_size": 2}, 16),  # noqa: RUF001  # as the paper prints it
        ("cct-16/2x4", {"img_size": 8}, 8),
        ("CCT-16/2x4", {"img_size": 15, "stride": 2}, 15),
        ("CvT-16/4x2", {}, 8),
        ("CvT-16/3x2", {"stride": 2}, 15),
    ],
)
def test_classifiers_train(variant: str, overrides: dict[str, Any], size: int) -> None:
    """In the layout of the LightningModule, with one channel."""
    module = ClassificationModule(variant, num_classes=5, in_channels=1, overrides=overrides)
    logits = module(torch.randn(2, 1, size, size).to(memory_format=torch.channels_last))
    assert logits.shape == (2, 5)
    nn.functional.cross_entropy(logits, torch.tensor([1, 4])).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_vit_is_that_of_vit_pytorch_without_its_norms_of_patches() -> None:
    """The paper's code had an older vit-pytorch, whose parameters timm's ViT has; the newer adds two norms."""
    from vit_pytorch import ViT

    theirs = ViT(image_size=8, patch_size=2, num_classes=5, dim=16, depth=2, heads=4, mlp_dim=32, dim_head=4)
    ours = build_model("ViT-16/2x4", 5, "classification", {"img_size": 8, "patch_size": 2})
    norms = 2 * (12 + 16)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - norms


@pytest.mark.parametrize(
    ("variant", "task", "overrides", "message"),
    [
        ("resnet50", "segmentation", {}, r"known for segmentation are WaveMix-\.\.\., ConvMixer-DIM/DEPTH"),
        ("resnet55", "classification", {}, "CCT-DIM/DEPTHxHEADS.* and the models of timm, did you mean 'resnet50'"),
        ("CCT-DIM/4x4", "classification", {}, "did you mean 'CCT-DIM/DEPTHxHEADS'"),
        ("HybridViN-128/4x4", "classification", {}, "the models of timm"),
        ("resnet18.none", "classification", {}, "model 'resnet18.none': Invalid pretrained tag"),
        ("resnet18", "classification", {"level": 2}, "resnet18.*level"),
        ("ConvMixer-32/3", "segmentation", {"level": 2}, "'level' is no argument of ConvMixer-32/3; known are in_chan"),
        ("CCT-128/4x4", "classification", {"img_size": 32, "mlp_radio": 1}, "'mlp_radio' is no argument of CCT-128"),
        ("CCT-128/4x4", "classification", {}, r"CCT-128/4x4 needs img_size, .* overrides \{img_size: 32\}"),
        ("ViT-128/4x4", "classification", {"patch_size": 2}, "ViT-128/4x4 needs img_size"),
        ("MLP-Mixer-64/2", "classification", {}, "MLP-Mixer-64/2 needs img_size"),
        ("ViT-130/4x4", "classification", {"img_size": 32}, "model 'ViT-130/4x4'.*divisible"),
        ("CvT-128/2x4", "classification", {}, "CvT has three stages and at least as many blocks, got 2"),
    ],
)
def test_what_is_not_there(variant: str, task: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(variant, 10, task, overrides)


@pytest.mark.parametrize(
    ("variant", "library"),
    [
        ("resnet18", "timm"),
        ("ConvMixer-16/2", "timm.models.convmixer"),
        ("ViT-16/2x4", "timm.models.vision_transformer"),
        ("MLP-Mixer-16/2", "timm.models.mlp_mixer"),
        ("CCT-16/2x4", "vit_pytorch.cct"),
        ("CvT-16/4x4", "vit_pytorch.cvt"),
    ],
)
def test_a_library_that_is_not_installed(variant: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as good as not there for an import
    overrides = {} if variant.startswith(("resnet", "Conv", "CvT")) else {"img_size": 8}
    with pytest.raises(InputError, match=rf"{library}.*pip install 'wavemix_pl\[baselines\]'"):
        build_model(variant, 10, "classification", overrides)
