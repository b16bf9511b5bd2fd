"""WaveMix as a PyTorch Lightning codebase."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["WaveMixClassifier", "WaveMixConfig", "WaveMixSegmenter", "create_model"]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

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


def _register_with_timm() -> None:
    try:
        import wavemix_pl.models.timm_models  # noqa: F401  # registers what it defines
    except Exception as error:  # whatever it is, timm itself must go on
        import warnings

        warnings.warn(f"the models of wavemix_pl are not among those of timm: {error}", stacklevel=2)


class _AfterTimm:
    """Puts our models among those of timm as soon as timm is imported: this package does not import it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next((spec for finder in behind if (spec := finder.find_spec(name, path, target))), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register_with_timm()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]  # of this loader alone
        return spec


if "timm" in sys.modules:
    _register_with_timm()
else:
    sys.meta_path.insert(0, _AfterTimm())
