r"""The models of `variants.py` among those of timm: `timm.create_model("wavemix_192_16_l3", pretrained=True)`.

`import wavemix_pl` is enough to have them there, before `import timm` or after. Arguments of `timm.create_model` beyond
timm's own are fields of `WaveMixConfig`, such as `dropout` or `head_dim`. A name may go on with the data set of
published weights: "wavemix_192_16_l3.galaxy10". timm's training script is started as

    python -c "import runpy, sys, wavemix_pl; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')" \
        train.py FOLDER --model wavemix_192_16_l3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, load_pretrained, register_model
from torch import Tensor, nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError
from wavemix_pl.models.variants import IMAGES, VARIANTS, Variant
from wavemix_pl.models.wavemix import GlobalMean, WaveMixClassifier
from wavemix_pl.models.weights import load_weights, model_state


class TimmWaveMix(WaveMixClassifier):
    """A `WaveMixClassifier` with what timm asks of its models. The state dict is that of the classifier.

    Args:
        cfg: What it is built from.
        num_classes: K; with 0 it returns what would enter the linear layer.
        in_chans: Channels of the images; None for those of `cfg`.
        global_pool: As timm names it: "avg", "max", ...; "" for none, with `num_classes` 0 only.
        drop_rate: Dropout before the linear layer. That inside the blocks is the field `dropout`.
        device: Where the parameters lie.
        dtype: Of the parameters.
        overrides: Fields of `WaveMixConfig`.

    Raises:
        InputError: A field that does not exist, or a value that no model can be built from.
    """

    def __init__(
        self,
        cfg: WaveMixConfig,
        num_classes: int = 1000,
        in_chans: int | None = None,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        **overrides: Any,
    ) -> None:
        channels = {} if in_chans is None else {"in_channels": in_chans}
        super().__init__(cfg.replace(**channels, **overrides), max(num_classes, 1))
        config = self.config
        self.in_chans, self.drop_rate, self.global_pool = config.in_channels, drop_rate, "avg"
        self.num_features = config.dim
        reduction = self.stem.reduction
        self.feature_info = [
            {"num_chs": config.dim, "reduction": reduction, "module": f"blocks.{index}"}
            for index in range(config.depth)
        ]
        self.reset_classifier(num_classes, global_pool)
        self.to(device=device, dtype=dtype)

    @property
    def head_hidden_size(self) -> int:
        """Numbers of an image that enter the linear layer."""
        width = self.config.head_dim or self.config.dim
        return 2 * width if self.global_pool.endswith("catavgmax") else width

    def get_classifier(self) -> nn.Module:
        return self.head.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for another number of classes, or none for 0; and another pooling.

        Raises:
            InputError: Classes, but no pooling.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if num_classes and not pool:
            raise InputError("global_pool='' is for num_classes=0: a linear layer takes no maps")
        if pool != self.global_pool:
            self.global_pool, self.head.pool = pool, _pool(pool).train(self.training)
        like = next(self.stem.parameters())
        linear = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.head.linear = cast(nn.Linear, linear.to(like.device, like.dtype).train(self.training))
        self.num_classes = num_classes

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, D, H', W') -> logits (B, K), or with `pre_logits` what would enter the linear layer."""
        x = F.dropout(self.head.pool(self.head.mix(x)), self.drop_rate, self.training)
        return x if pre_logits else self.head.linear(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_intermediates(  # type: ignore[override]  # timm's, with more arguments and a second result
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What comes out of chosen blocks, (B, D, H', W') each; by default after what comes out of the last one.

        Args:
            x: Images (B, C, H, W).
            indices: As in `WaveMix.forward_intermediates`, or a number n for the last n blocks.
            norm: Without effect: there is no norm behind the blocks.
            stop_early: Whether the last chosen block takes the part of the last one.
            output_fmt: "NCHW" is the only one.
            intermediates_only: Whether to return the list alone.

        Raises:
            InputError: An index that no block has, or another format.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        chosen = self._chosen(indices)
        if intermediates_only:
            return super().forward_intermediates(x, chosen)
        last = max(chosen) if stop_early else -1
        *maps, x = super().forward_intermediates(x, [*chosen, last])
        return x, maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the blocks behind the last chosen one and, with `prune_head`, the head; returns the indices from 0."""
        chosen = self._chosen(indices)
        depth = max(chosen) + 1
        self.blocks = self.blocks[:depth].train(self.training)
        self.config = self.config.replace(depth=depth)
        if prune_head:
            self.reset_classifier(0, "")
        return chosen

    def _chosen(self, indices: int | Sequence[int] | None) -> list[int]:
        return self._from_0(range(-indices, 0) if isinstance(indices, int) else indices)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.execution = "checkpointed" if enable else "plain"

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters lie how deep, for learning rates that fall from layer to layer."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """Published weights by their name, fitted to other channels or classes in timm's own way. timm calls it."""
        cfg = cast(dict[str, Any], self.pretrained_cfg)
        of_weights = self.config.replace(in_channels=cfg["input_size"][0])
        model = WaveMixClassifier(of_weights, cfg["num_classes"])
        load_weights(model, checkpoint_path)
        found = {**cfg, "state_dict": model.state_dict(), "custom_load": False}
        load_pretrained(self, found, num_classes=self.num_classes, in_chans=self.in_chans)


def _pool(global_pool: str) -> nn.Module:
    if global_pool == "avg":
        return GlobalMean()
    return SelectAdaptivePool2d(pool_type=global_pool, flatten=True) if global_pool else nn.Identity()


def _cfgs(variant: Variant) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and default_cfg of a variant with each of its weights, or without any."""
    for tag, weights in variant.weights.items() or [("", None)]:
        images = IMAGES[tag.partition("_")[0] or variant.data]
        rows, columns = (weights and weights.image_size) or (images.side, images.side)
        source = {"file": weights.name, "custom_load": True, "num_classes": weights.num_classes} if weights else {}
        yield (
            f"{variant.name}.{tag}".rstrip("."),
            {
                "input_size": (variant.config.in_channels, rows, columns),
                "num_classes": images.num_classes,
                "mean": images.mean,
                "std": images.std,
                "crop_pct": 1.0,
                "interpolation": "bicubic",
                "first_conv": "stem.0",
                "classifier": "head.linear",
                "paper_name": "WaveMix: A Resource-efficient Neural Network for Image Analysis",
                "paper_ids": "arXiv:2205.14375",
                **source,
            },
        )


def _entrypoint(variant: Variant) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = {"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"}
        model: nn.Module = build_model_with_cfg(
            TimmWaveMix,
            variant.name,
            pretrained,
            model_cfg=variant.config,
            feature_cfg=features,
            pretrained_filter_fn=lambda state, _: model_state(state),
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = variant.name
    create.__doc__ = f"{variant.config.notation}, for {variant.data} unless its weights say otherwise."
    return create


default_cfgs = generate_default_cfgs(dict(entry for variant in VARIANTS.values() for entry in _cfgs(variant)))
for _variant in VARIANTS.values():
    globals()[_variant.name] = register_model(_entrypoint(_variant))
