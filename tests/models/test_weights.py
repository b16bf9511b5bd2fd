"""Reading weights, and giving a segmenter the backbone of a classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.weights import load_checkpoint, model_state, transfer_backbone

NAME = "WaveMix-8/2 (level 2)"


def test_transfer_says_what_went_where() -> None:
    classifier = create_model(NAME, 10)
    segmenter = create_model(NAME, 4, task="segmentation")
    fresh = {name: value.clone() for name, value in segmenter.state_dict().items()}
    transfer = transfer_backbone(segmenter, classifier.state_dict())
    source, target = classifier.state_dict(), segmenter.state_dict()
    assert set(transfer.taken) | set(transfer.new) == set(target)
    assert set(transfer.taken) | set(transfer.unused) == set(source)
    assert all(torch.equal(target[name], source[name]) for name in transfer.taken)
    assert all(torch.equal(target[name], fresh[name]) for name in transfer.new)
    assert {name.split(".")[0] for name in transfer.new + transfer.unused} == {"head"}
    for name in transfer.new + transfer.unused:
        assert name in str(transfer)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("WaveMix-12/2 (level 2)", "stem.0.weight is"),
        ("WaveMix-8/1 (level 2)", "no blocks.1.reduce.weight"),
        ("WaveMix-8/3 (level 2)", "have blocks.2.reduce.weight"),
        ("WaveMix-Lite-8/2", "blocks.0.paths"),
    ],
)
def test_another_backbone_is_refused_and_nothing_changes(source: str, named: str) -> None:
    segmenter = create_model(NAME, 4, task="segmentation")
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    with pytest.raises(InputError, match=named):
        transfer_backbone(segmenter, create_model(source, 10).state_dict())
    torch.testing.assert_close(dict(segmenter.state_dict()), before)


def test_the_model_in_a_checkpoint_of_lightning() -> None:
    state = {"model.stem.0.weight": torch.ones(1), "loss.weight": torch.ones(2)}
    assert list(model_state({"state_dict": state})) == ["stem.0.weight"]
    for nothing in ({}, {"epoch": 3}, {"state_dict": {"model.a": 1}}):
        with pytest.raises(InputError, match="neither a checkpoint"):
            model_state(nothing)


def test_load_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "file.pt")
    assert torch.equal(load_checkpoint(tmp_path / "file.pt")["a"], torch.ones(2))
    (tmp_path / "file.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:-300])
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path / "file.pt")
