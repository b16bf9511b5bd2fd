"""WaveMix as a PyTorch Lightning codebase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["WaveMixClassifier", "WaveMixConfig", "WaveMixSegmenter", "create_model"]

if TYPE_CHECKING:
    from wavemix_pl.config import WaveMixConfig
    from wavemix_pl.models.wavemix import WaveMixClassifier, WaveMixSegmenter, create_model


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Imports the public names when they are first used, so that `wavemix-pl --help` need not wait for torch."""
    if name == "WaveMixConfig":
        from wavemix_pl.config import WaveMixConfig

        return WaveMixConfig
    if name in __all__:
        from wavemix_pl.models import wavemix

        return getattr(wavemix, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
