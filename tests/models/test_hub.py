"""Models in folders, on the Hugging Face hub (without a network) and by torch.hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from wavemix_pl import WaveMixClassifier, WaveMixConfig, WaveMixSegmenter, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.variants import VARIANTS

ROOT = Path(__file__).parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1"}


def python(code: str, *, cwd: Path = ROOT, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**OFFLINE, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return library


def small(task: Any = "classification", **overrides: Any) -> Any:
    return create_model("WaveMix-8/2 (level 2)", 3, task=task, **overrides)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_round_trip(hub: Any, task: Any, layout: torch.memory_format, tmp_path: Path) -> None:
    model = small(task, in_channels=2, ff=12, stem="patchify", head_dim=6).to(memory_format=layout).train()
    images = torch.randn(2, 2, 16, 16)
    model(images)  # batch statistics that are not those of a fresh model
    assert model.save_pretrained(tmp_path / "new" / "folder") is None
    loaded = type(model).from_pretrained(tmp_path / "new" / "folder")
    assert not loaded.training
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(loaded(images), model.eval()(images))


def test_config_is_plain_json(hub: Any, tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config.pop("task"), config.pop("num_classes")) == ("classification", 3)
    assert WaveMixConfig(**config) == model.config
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_a_config_of_a_later_version_may_have_more_fields(hub: Any, tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "from_the_future": True}))
    assert WaveMixClassifier.from_pretrained(str(tmp_path)).num_classes == 3


def test_card(hub: Any, tmp_path: Path) -> None:
    small("segmentation").save_pretrained(tmp_path, model_card_kwargs={"trained_on": "squares", "repo_id": "me/mine"})
    text = (tmp_path / "README.md").read_text()
    for part in (
        *("# WaveMix-8/2 (level 2)", "arxiv.org/abs/2205.14375", "Trained on: squares", "## Licence", "MIT"),
        'WaveMixSegmenter.from_pretrained("me/mine")',
    ):
        assert part in text
    card = hub.ModelCard(text)
    assert (card.data.license, card.data.library_name) == ("mit", "wavemix_pl")
    assert card.data.pipeline_tag == "image-segmentation"
    (tmp_path / "README.md").write_text("written by hand")
    small("segmentation").save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "written by hand"


def test_weights_file_goes_into_create_model(hub: Any, tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(small(pretrained=tmp_path / "model.safetensors").state_dict(), model.state_dict())


def test_what_cannot_be_loaded(hub: Any, tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a model for classification: use WaveMixClassifier"):
        WaveMixSegmenter.from_pretrained(tmp_path)
    with pytest.raises(TypeError):
        WaveMixClassifier.from_pretrained(tmp_path, of_no_use=1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_classes": 4}))
    with pytest.raises(InputError, match=r"head.linear.bias is \(3,\), in a model of its config \(4,\)"):
        WaveMixClassifier.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: no such file"):
        WaveMixClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config.json"):
        WaveMixClassifier.from_pretrained(tmp_path)
    for nothing in ("no/such/folder", "owner/model"):
        with pytest.raises(InputError, match=nothing):
            WaveMixClassifier.from_pretrained(nothing, cache_dir=tmp_path)


def test_a_changed_model_is_not_saved(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model was changed after it was built"):
        small("segmentation").fuse().save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_from_the_hubs_cache(hub: Any, tmp_path: Path) -> None:
    model = small()
    repository = tmp_path / "models--me--mine"
    model.save_pretrained(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    loaded = WaveMixClassifier.from_pretrained("me/mine", cache_dir=tmp_path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())


def test_push(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, Any] = {}

    def upload_folder(_: Any, *, folder_path: Path, repo_id: str, **__: Any) -> str:
        pushed.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, repo_id=repo_id)
        return "https://address"

    monkeypatch.setattr(
        hub.HfApi, "create_repo", lambda _, repo_id, **__: hub.RepoUrl(f"https://huggingface.co/{repo_id}")
    )
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    assert small().push_to_hub("me/mine", private=True) == "https://address"
    assert pushed["repo_id"] == "me/mine"
    assert pushed["model.safetensors"]
    assert b'from_pretrained("me/mine")' in pushed["README.md"]


def test_without_the_libraries(tmp_path: Path) -> None:
    """The classes are there, and say what to install; with the libraries nothing imports them before they are used."""
    out = python(
        "import sys\n"
        "from wavemix_pl import WaveMixClassifier, WaveMixConfig\n"
        "assert not {'huggingface_hub', 'safetensors', 'timm'} & set(sys.modules)\n"
        "model = WaveMixClassifier(WaveMixConfig(dim=8, depth=1), 3)\n"
        "for library in ('huggingface_hub', 'safetensors'):\n"
        "    sys.modules[library] = None\n"
        "    for use in (lambda: model.save_pretrained('x'), lambda: WaveMixClassifier.from_pretrained('x')):\n"
        "        try:\n"
        "            use()\n"
        "        except ValueError as error:\n"
        "            print(type(error).__name__, error)\n"
    )
    assert out.count("InputError") == 4
    assert out.count("pip install 'wavemix_pl[hub]'") == 4


def test_torch_hub(tmp_path: Path) -> None:
    """From another directory, and with published weights in a local folder."""
    weights = tmp_path / "cifar10" / "cifar10_94.58.pth"
    weights.parent.mkdir()
    source = create_model(VARIANTS["wavemix_lite_144_7"].config, 10)
    torch.save(source.state_dict(), weights)
    out = python(
        "import torch\n"
        f"root = {str(ROOT)!r}\n"
        "def load(*names, **options): return torch.hub.load(root, *names, source='local', **options)\n"
        "model = load('wavemix_192_16_l3', pretrained=False)\n"
        "print(type(model).__name__, model.config.notation, model.num_classes)\n"
        "print(load('wavemix_lite_8_5', num_classes=4, dropout=0.0)(torch.zeros(1, 1, 28, 28)).shape[1])\n"
        "print(load('wavemix_lite_144_7', pretrained=True).head.linear.weight.double().sum().item())\n"
        "print(load('wavemix_lite_144_7', pretrained='cifar10', num_classes=4).num_classes)\n"
        "for name in ('wavemix_lite_8_5', 'wavemix_lite_144_7'):\n"
        "    try: load(name, pretrained='imagenet')\n"
        "    except ValueError as error: print(error)\n",
        cwd=tmp_path,
        WAVEMIX_PL_WEIGHTS=str(tmp_path),
    ).splitlines()
    assert out[0] == "WaveMixClassifier WaveMix-192/16 (level 3) 1000"
    assert out[1] == "4"
    assert float(out[2]) == source.head.linear.weight.double().sum().item()
    assert out[3] == "4"
    assert out[4:] == [
        "wavemix_lite_8_5: published weights are none, got 'imagenet'",
        "wavemix_lite_144_7: published weights are cifar10, got 'imagenet'",
    ]


def test_torch_hub_lists_the_variants() -> None:
    """torch.hub.list takes no local folder: its rule is that of the public callables."""
    out = python("import hubconf; print(*(n for n in dir(hubconf) if callable(getattr(hubconf, n)) and n[0] != '_'))")
    assert set(out.split()) == set(VARIANTS)
    assert "pretrained" in python("import hubconf; print(hubconf.wavemix_192_16_l3.__doc__)")
