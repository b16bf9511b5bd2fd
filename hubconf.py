"""WaveMix by torch.hub: `torch.hub.load(THIS_FOLDER, "wavemix_192_16_l3", source="local", pretrained=True)`."""

from __future__ import annotations

from collections.abc import Callable as _Callable
from typing import Any as _Any

from wavemix_pl.errors import InputError as _InputError
from wavemix_pl.models.variants import IMAGES as _IMAGES
from wavemix_pl.models.variants import VARIANTS as _VARIANTS
from wavemix_pl.models.variants import Variant as _Variant
from wavemix_pl.models.wavemix import WaveMixClassifier as _WaveMixClassifier
from wavemix_pl.models.weights import load_weights as _load_weights

dependencies = ["torch"]


def _entrypoint(variant: _Variant) -> _Callable[..., _WaveMixClassifier]:
    tags = list(variant.weights)

    def create(pretrained: bool | str = False, num_classes: int | None = None, **overrides: _Any) -> _WaveMixClassifier:
        weights = None
        if pretrained:
            tag = next(iter(tags), None) if pretrained is True else pretrained
            if tag not in tags:
                raise _InputError(
                    f"{variant.name}: published weights are {', '.join(tags) or 'none'}, got {pretrained!r}"
                )
            weights = variant.weights[tag]
        classes = num_classes or (weights.num_classes if weights else _IMAGES[variant.data].num_classes)
        model = _WaveMixClassifier(variant.config.replace(**overrides), classes)
        if weights:
            _load_weights(model, weights.name, new_head=classes != weights.num_classes)
        return model

    create.__name__ = create.__qualname__ = variant.name
    create.__doc__ = f"""{variant.config.notation}: images (B, {variant.config.in_channels}, H, W) -> logits (B, K).

    Args:
        pretrained: Whether to load published weights, or which: {", ".join(tags) or "there are none"}.
        num_classes: K; by default that of the weights, or of {variant.data}. For others the last layer is a new one.
        overrides: Fields of `wavemix_pl.WaveMixConfig`.
    """
    return create


globals().update({name: _entrypoint(variant) for name, variant in _VARIANTS.items()})
