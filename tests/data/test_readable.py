"""Images that cannot be read: refused, or left out where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        for name, color in (("bag", 50), ("boot", 200)):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (color, number, 0)).save(tmp_path / "own" / split / name / f"{number}.png")
    return tmp_path / "own"


def fit(run: Run, root: Path, *more: str) -> int:
    options = ("--data.image_size=[8,8]", "--data.batch_size=2", "--trainer.max_epochs=1")
    return run(
        "fit", "--data=ImageFolderData", f"--data.root={root}", "--model.variant=WaveMix-Lite-8/1", *options, *more
    )


def test_refused_unless_asked_for(run: Run, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train" / "boot" / "2.png").write_bytes(b"no image")
    assert fit(run, root) == 2
    assert "2.png: cannot be read as an image" in capsys.readouterr().err


def test_left_out_and_named(run: Run, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("train/boot/2.png", "train/bag/0.png", "val/bag/1.png"):
        path = root / place
        path.write_bytes(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="left out") as warned:
        assert fit(run, root, "--data.skip_unreadable=true") == 0
    said = [str(warning.message) for warning in warned if "left out" in str(warning.message)]
    assert said[0].startswith("training images: 2 of 8 are left out, since they cannot be read: ")
    assert all(f"{name}: cannot be read as an image" in said[0] for name in ("boot/2.png", "bag/0.png"))
    assert said[1].startswith("validation images: 1 of 8 are left out")
    assert len(said) == 2


def test_nothing_left(run: Run, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    assert fit(run, root, "--data.skip_unreadable=true") == 2
    assert "training images: none of 8 images can be read; the first: " in capsys.readouterr().err.splitlines()[-1]
