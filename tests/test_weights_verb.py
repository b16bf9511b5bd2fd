"""The verb `weights`."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wavemix_pl.models.published_weights import PUBLISHED
from wavemix_pl.models.shipped import shipped_models

NAME = "galaxy10/wavemix-192-16-level3"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and none of the files that may lie on this machine."""

    def refuse(*_: object) -> None:
        raise AssertionError("the verb asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("WAVEMIX_PL_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def put(folder: Path) -> Path:
    path = folder / PUBLISHED[NAME].file
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_json(run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = put(tmp_path / "weights").relative_to(tmp_path)
    assert run("weights", "--json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(listed) == [*PUBLISHED, *shipped_models()]
    assert listed[NAME] == {
        "name": NAME,
        "task": "classification",
        "model": "WaveMix-192/16 (level 3)",
        "overrides": {"stem": "patchify", "patch_size": 4},
        "classes": 10,
        "image_size": [256, 256],
        "claimed": "95.42",
        "file": "galaxy10/galaxy_95.42.pth",
        "url": "https://huggingface.co/cloudwalker/wavemix/resolve/main/Saved_Models_Weights/galaxy10/galaxy_95.42.pth",
        "found": str(path),
        "note": "trained without normalisation: --data.mean=[0,0,0] --data.std=[1,1,1]",
    }
    assert listed["cityscapes/wavemix-192-16-level3"]["note"] == "0 is void, then train id + 1"
    assert listed["imagenet/wavemix-256-16-level4"]["image_size"] is None


def test_table(run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = put(tmp_path / "mine")
    assert run("weights", "--folder", "mine") == 0
    printed = capsys.readouterr().out
    for entry in PUBLISHED.values():
        assert entry.name in printed
        assert entry.accuracy in printed
    assert f" {path.relative_to(tmp_path)} " in printed
    assert " no: galaxy10/galaxy_90.23.pth " in printed
    assert "83.04% mIoU" in printed
    assert "put in by hand lie in mine" in printed


def test_what_lies_in_the_hubs_cache(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repository, file: f"/cache/{repository}/{file}"
    )
    assert run("weights", "--json") == 0
    found = {entry["name"]: entry["found"] for entry in json.loads(capsys.readouterr().out)}
    assert found[NAME] == f"/cache/cloudwalker/wavemix/Saved_Models_Weights/{PUBLISHED[NAME].file}"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run("weights", "--json") == 0
    assert {entry["found"] for entry in json.loads(capsys.readouterr().out) if entry["url"]} == {None}
