"""Damaged checkpoints and full disks: what is wrong is named, and nothing that is whole is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.crashes import RUN, SMALL, fill_disk, fit, outcome, run_until
from wavemix_pl.callbacks.last_checkpoint import WholeFiles
from wavemix_pl.checkpoint_file import damage
from wavemix_pl.errors import InputError, disk_error

Run = Callable[..., int]
CHECKPOINTS = Path(RUN, "checkpoints")
SLOW = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def flip_a_bit(file: Path) -> None:
    """In a tensor: torch.load says nothing of it."""
    state = torch.load(file, weights_only=True)["state_dict"]
    name = max(state, key=lambda name: state[name].numel() * state[name].is_contiguous())
    data = bytearray(file.read_bytes())
    data[data.index(state[name].numpy().tobytes()) + 10] ^= 4
    file.write_bytes(data)
    assert not torch.equal(torch.load(file, weights_only=True)["state_dict"][name], state[name])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A folder with a run that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    assert not fit(folder, data_root, last=125)
    (folder / CHECKPOINTS / "last.ckpt.part").unlink(missing_ok=True)
    names = ("previous", "last")
    steps = [torch.load(folder / CHECKPOINTS / f"{name}.ckpt", weights_only=True)["global_step"] for name in names]
    assert steps[1] == steps[0] + 1 > 6
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    assert fit(folder, data_root)
    return outcome(folder)


@pytest.mark.parametrize("harm", [flip_a_bit, *(pytest.param(harm, marks=SLOW) for harm in (cut, empty))])
def test_goes_on_from_the_one_before(
    harm: Any, tmp_path: Path, data_root: Path, stopped: Path, whole: dict[str, str]
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    harm(tmp_path / "run" / CHECKPOINTS / "last.ckpt")
    ended = run_until(tmp_path / "run", data_root)
    assert ended.code == 0
    warned = [line for line in ended.said.splitlines() if f"{CHECKPOINTS}/last.ckpt: " in line]
    assert len(warned) == 1
    assert f"Going on from {CHECKPOINTS}/previous.ckpt" in warned[0]
    assert outcome(tmp_path / "run") == whole


@SLOW
def test_a_damaged_one_never_takes_the_place_of_a_whole_one(tmp_path: Path, data_root: Path, stopped: Path) -> None:
    """Killed just after the first new checkpoint: the one before is the one that the run went on from."""
    shutil.copytree(stopped, tmp_path / "run")
    folder = tmp_path / "run" / CHECKPOINTS
    cut(folder / "last.ckpt")
    for last in range(10, 60, 4):
        if not fit(tmp_path / "run", data_root, last=last) and not damage(folder / "last.ckpt"):
            break
    assert damage(folder / "previous.ckpt") is None


@SLOW
def test_goes_on_from_the_best(tmp_path: Path, data_root: Path, stopped: Path, whole: dict[str, str]) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    flip_a_bit(tmp_path / "run" / CHECKPOINTS / "last.ckpt")
    cut(tmp_path / "run" / CHECKPOINTS / "previous.ckpt")
    ended = run_until(tmp_path / "run", data_root)
    assert ended.code == 0
    assert f"Going on from {CHECKPOINTS}/best.ckpt" in ended.said
    assert outcome(tmp_path / "run") == whole


@pytest.fixture
def damaged(run: Run, stopped: Path) -> Run:
    """The command line, beside a run whose last checkpoint has a flipped bit."""
    shutil.copytree(stopped / RUN, RUN)
    flip_a_bit(CHECKPOINTS / "last.ckpt")
    return run


def test_nothing_whole_is_left(damaged: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty(CHECKPOINTS / "previous.ckpt")
    cut(CHECKPOINTS / "best.ckpt")
    before = contents(Path(RUN))
    assert damaged("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL) == 2
    said = capsys.readouterr().err.splitlines()
    assert "no whole checkpoint to go on from: run/checkpoints/last.ckpt: the checksum of" in said[-1]
    assert all(f"{name}.ckpt" in said[-1] for name in ("last", "previous", "best"))
    assert contents(Path(RUN)) == before


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        ("fit", "run/checkpoints/last.ckpt"),
        pytest.param("test", "run/checkpoints/last.ckpt", marks=SLOW),
        pytest.param("test", "last", marks=SLOW),
    ],
)
def test_a_damaged_one_that_is_asked_for(
    damaged: Run, verb: str, asked: str, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(Path(RUN))
    data = ("--data=FashionMNIST", f"--data.root={data_root}", f"--trainer.default_root_dir={RUN}")
    assert damaged(verb, *data, f"--ckpt_path={asked}") == 2
    said = capsys.readouterr().err.splitlines()
    assert "run/checkpoints/last.ckpt: the checksum of" in said[-1]
    assert "run/checkpoints/previous.ckpt is whole, use it instead" in said[-1]
    assert contents(Path(RUN)) == before


def test_damage_anywhere_is_seen_or_harmless(tmp_path: Path, stopped: Path) -> None:
    """Bytes changed and files cut at random: what is called whole has the values that were written."""
    original = (stopped / CHECKPOINTS / "last.ckpt").read_bytes()
    draw, file, seen = random.Random(0), tmp_path / "x.ckpt", 0
    file.write_bytes(original)
    assert damage(file) is None
    expected = torch.load(file, weights_only=True)
    for number in range(150):
        data = bytearray(original)
        if number % 3:
            # every other time in the last part, the archive's directory
            start = len(data) - 3000 if number % 2 else 0
            data[draw.randrange(start, len(data))] ^= draw.randrange(1, 256)
        else:
            del data[draw.randrange(len(data)) :]
        file.write_bytes(data)
        if damage(file):
            seen += 1
        else:
            assert number % 3
            found = torch.load(file, weights_only=True)
            assert repr(found["loops"]) == repr(expected["loops"])
            for name, value in expected["state_dict"].items():
                torch.testing.assert_close(found["state_dict"][name], value, rtol=0, atol=0)
    assert seen > 75


# -- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [112, *(pytest.param(last, marks=SLOW) for last in (101, 114, 140))])
def test_full_disk(last: int, tmp_path: Path, data_root: Path, whole: dict[str, str]) -> None:
    """At some moment nothing can be written any more: one line, what was there is whole, and the run can go on."""
    ended = run_until(tmp_path, data_root, last=last, what=fill_disk)
    assert ended.code == 2, ended.said
    line = ended.said.splitlines()[-1]
    assert line.startswith("wavemix-pl: error: ")
    assert "File too large" in line
    assert "Free space on its disk, then go on with the same command and --ckpt_path=last" in line
    assert RUN in line
    assert "Traceback" not in ended.said
    assert not list(tmp_path.rglob("*.part"))
    files = sorted((tmp_path / CHECKPOINTS).iterdir())
    assert len(files) >= 2
    assert not any(map(damage, files))
    assert fit(tmp_path, data_root)
    assert outcome(tmp_path) == whole


@SLOW
def test_disk_that_is_full_from_the_start(tmp_path: Path, data_root: Path) -> None:
    ended = run_until(tmp_path, data_root, last=1, what=fill_disk)
    assert ended.code == 2, ended.said
    assert "could not be written (File too large)" in ended.said.splitlines()[-1]
    assert not (tmp_path / RUN).exists()


def test_checkpoints_are_moved_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    files, place, before = WholeFiles(), tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    files.moved = {place: before}
    for step in range(3):
        files.save_checkpoint({"step": step}, place)
    with pytest.raises(Exception, match=r"pickle|local object"):
        files.save_checkpoint({"step": lambda: 3}, place)
    assert [torch.load(file, weights_only=True)["step"] for file in (before, place)] == [1, 2]
    assert sorted(tmp_path.iterdir()) == [place, before]


def test_only_full_disks_are_called_full() -> None:
    error = RuntimeError("writer")
    error.__context__ = OSError(28, "No space left on device")
    found = disk_error(error, Path("a/b.ckpt"))
    assert isinstance(found, InputError)
    assert "a/b.ckpt could not be written (No space left on device)" in str(found)
    error.__context__ = OSError(13, "Permission denied")
    assert disk_error(error, Path("a")) is None
