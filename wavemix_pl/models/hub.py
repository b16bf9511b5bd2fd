"""Models in folders and on the Hugging Face hub: weights (safetensors), config (JSON) and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from wavemix_pl.config import WaveMixConfig
from wavemix_pl.errors import InputError

Model = TypeVar("Model", bound="HubModel")

_WEIGHTS = "model.safetensors"
_PUBLIC = {"classification": "WaveMixClassifier", "segmentation": "WaveMixSegmenter"}  # a card names no subclass
_CARD = """---
{{ card_data }}
---

# {{ notation }}

WaveMix for image {{ task }}: {{ parameters }} parameters, {{ num_classes }} classes, images of {{ in_channels }}
channel(s).

- Paper: [WaveMix: A Resource-efficient Neural Network for Image Analysis]({{ paper_url }})
- Trained on: {{ trained_on | default("not told", true) }}
- Images: {{ images | default("not told; how they were normalised in training matters", true) }}
- Results: {{ results | default("not told", true) }}

## Usage

```python
from wavemix_pl import {{ class_name }}

model = {{ class_name }}.from_pretrained("{{ repo_id | default("FOLDER or OWNER/NAME", true) }}")
logits = model(images)  # images (B, {{ in_channels }}, H, W), float32
```

## Licence

MIT, as wavemix_pl itself. If the weights come from elsewhere, change this line and `license` above to what holds there.
"""


class HubModel(nn.Module):
    """A model that can be saved to a folder or pushed to the hub, and comes back from either.

    It works through huggingface_hub's PyTorchModelHubMixin, which is imported when it is needed.
    """

    config: WaveMixConfig
    num_classes: int
    task: ClassVar[str]

    def save_pretrained(self, folder: str | Path, **options: Any) -> str | None:
        """Writes `config.json`, `model.safetensors` and, where there is none yet, the model card `README.md`.

        Args:
            folder: Made where it is missing.
            options: Of the mixin's method: push_to_hub, repo_id, and model_card_kwargs, a dict that tells the card what
                the model does not know: trained_on, images, results.

        Returns:
            The address of the commit if it was pushed.

        Raises:
            InputError: huggingface_hub is not installed; or the model's tensors are no longer those of
                its config, so that they could not be loaded.
        """
        address: str | None = _on_hub(type(self))(self).save_pretrained(folder, **options)
        return address

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Saves the model to a repository of the hub.

        Args:
            repo_id: "OWNER/NAME".
            options: Of the mixin's method: private, token, branch, commit_message, model_card_kwargs.

        Returns:
            The address of the commit.

        Raises:
            InputError: As of `save_pretrained`.
        """
        card = {"repo_id": repo_id, **options.pop("model_card_kwargs", {})}
        address: str = _on_hub(type(self))(self).push_to_hub(repo_id, model_card_kwargs=card, **options)
        return address

    @classmethod
    def from_pretrained(
        cls: type[Model],
        source: str | Path,
        *,
        map_location: str = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Model:
        """A model that `save_pretrained` or `push_to_hub` saved, in evaluation mode.

        Args:
            source: A folder, or "OWNER/NAME" on the hub.
            map_location: The device to put it on.
            revision: Branch, tag or commit of the hub's repository; this and the next ones as the mixin has them.
            token: Of the hub.
            cache_dir: Of what comes from the hub.
            force_download: Whether to fetch what is in the cache.
            local_files_only: Whether to fetch nothing.

        Raises:
            InputError: huggingface_hub is not installed; or the source has no such model.
        """
        places = {"revision": revision, "token": token, "cache_dir": cache_dir}
        options = {"map_location": map_location, "force_download": force_download, "local_files_only": local_files_only}
        try:
            loaded: Model = _on_hub(cls).from_pretrained(source, **places, **options).module
        except InputError:
            raise
        except Exception as error:  # the hub's own, or from whichever HTTP library its version uses
            raise InputError(f"{source}: no such folder, and not to be had from the hub ({error})") from error
        return loaded


def _on_hub(model_class: type[HubModel]) -> Any:
    """huggingface_hub's mixin around a model: a class with its documented methods to override."""
    try:
        from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise InputError(f"{error}; saving and loading models needs: pip install 'wavemix_pl[hub]'") from None

    class OnHub(
        PyTorchModelHubMixin,
        library_name="wavemix_pl",
        paper_url="https://arxiv.org/abs/2205.14375",
        license="mit",
        pipeline_tag=f"image-{model_class.task}",
        tags=["wavemix", "wavelet", "arxiv:2205.14375"],
        model_card_template=_CARD,
    ):
        def __init__(self, module: HubModel) -> None:
            self.module = module

        def _save_pretrained(self, save_directory: Path) -> None:
            model = self.module
            # safetensors refuses channels last
            state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
            config = {"task": model.task, "num_classes": model.num_classes, **asdict(model.config)}
            with torch.device("meta"):
                loaded = _build(type(model), "the model", config)
            _check_tensors(loaded, state, "the model was changed after it was built")
            save_file(state, str(save_directory / _WEIGHTS), metadata={"format": "pt"})
            (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")

        def generate_model_card(self, *_: Any, **facts: Any) -> ModelCard:
            model = self.module
            own = {"notation": model.config.notation, "in_channels": model.config.in_channels, "task": model.task}
            own |= {"num_classes": model.num_classes, "class_name": _PUBLIC[model.task]}
            count = sum(parameter.numel() for parameter in model.parameters())
            own["parameters"] = f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"
            return super().generate_model_card(**{**own, **facts})

        @classmethod
        def _from_pretrained(  # to which the mixin hands the config, since there is an argument of that name
            cls, *, model_id: str, config: dict[str, Any] | None = None, map_location: str = "cpu", **of_hub: Any
        ) -> OnHub:
            model = _build(model_class, model_id, config)
            in_folder = Path(model_id, _WEIGHTS)
            file = in_folder if Path(model_id).is_dir() else Path(hf_hub_download(model_id, _WEIGHTS, **of_hub))
            if not file.is_file():
                raise InputError(f"{file}: no such file; save_pretrained writes it")
            state = load_file(str(file), device=str(map_location))
            _check_tensors(model, state, str(file))
            model.load_state_dict(state)
            return cls(model.to(map_location).eval())

    return OnHub


def _build(model_class: type[Model], source: str, config: Mapping[str, Any] | None) -> Model:
    """A model from what `config.json` holds."""
    known = {field.name for field in fields(WaveMixConfig)}
    if not config or not {"num_classes", "dim", "depth"} <= config.keys():
        raise InputError(f"{source}: no config.json as save_pretrained writes it, or none to be had from the hub")
    if config.get("task", model_class.task) != model_class.task:
        raise InputError(f"{source}: a model for {config['task']}: use {_PUBLIC[config['task']]}")
    values = {name: value for name, value in config.items() if name in known}
    build: Any = model_class  # of a config and a number of classes
    return cast(Model, build(WaveMixConfig(**values), config["num_classes"]))


def _check_tensors(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Refuses tensors that the model does not take."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    given = {name: tensor.shape for name, tensor in state.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            here, there = (tuple(of[name]) if name in of else "missing" for of in (given, wanted))
            raise InputError(f"{what}: {name} is {here}, in a model of its config {there}")
