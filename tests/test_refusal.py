"""Whatever is given: a model that works, a run, or one line that says what is wrong. Never anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.refusal import refusal

Run = Callable[..., int]
SMALL = (
    *("--data.batch_size=12", "--data.val_fraction=0.25", "--model.variant=WaveMix-Lite-4/1"),
    *("--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_model_summary=false"),
)
BAD = {
    "--trainer.val_check_interval=1000": "`val_check_interval` (1000) must be less than or equal to",
    "--model.num_classes=7": "num_classes is told by the data: leave --model.num_classes out",
    "--model=SegmentationModule": "FashionMNIST has classes, not masks: choose other --data, or another --model",
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be at least 1, got 0",
    "--trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch must be at least 1, got 0",
    "--trainer.val_check_interval=0": "trainer.val_check_interval must be a share of an epoch above 0",
    "--trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be at least 0, got -1",
    "--trainer.num_nodes=0": "trainer.num_nodes must be at least 1, got 0",
    "--data.split_seed=99999999999999999999": "split_seed must be a number of at most 63 bits",
    "--trainer.strategy=fsdp": "requires a GPU",
}


@pytest.mark.parametrize(
    "option", [*[*BAD][:3], *(pytest.param(option, marks=pytest.mark.slow) for option in [*BAD][3:])]
)
def test_named_in_one_line(option: str, run: Run, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--data=FashionMNIST", f"--data.root={data_root}", *SMALL, option) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("wavemix-pl: error: ")
    assert BAD[option] in last
    assert not [*Path("runs").glob("*")]


def test_our_own_faults_are_not_the_users() -> None:
    """A ValueError of ours keeps its traceback once the verb has begun."""
    with pytest.raises(ValueError, match="invalid literal") as raised:
        int("x")
    assert refusal(raised.value, begun=True, trained=False, directory=Path()) is None
    assert isinstance(refusal(raised.value, begun=False, trained=False, directory=Path()), InputError)


@pytest.mark.parametrize("index", [11, *(pytest.param(index, marks=pytest.mark.slow) for index in (0, 5))])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_image_that_cannot_be_read(index: int, workers: int, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(12):
            folder = Path("images", split, "ab"[number % 2])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    broken = Path("images", "train", "ab"[index % 2], f"{index}.png")
    broken.write_bytes(broken.read_bytes()[:100])
    data = ("--data=ImageFolderData", "--data.root=images", "--data.image_size=[9,9]", f"--data.num_workers={workers}")
    assert run("fit", *data, *SMALL, "--data.batch_size=3", "--trainer.default_root_dir=run") == 2
    assert f"{broken}: cannot be read as an image" in capsys.readouterr().err.splitlines()[-1]


# -- anything at all ------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-3, 12), st.sampled_from([0.5, -0.5, float("nan"), float("inf"), 10**30, True]))
VALUES = st.one_of(NUMBERS, st.none(), st.text(max_size=4), st.lists(NUMBERS, max_size=2), st.just({}))
NOTATIONS = st.one_of(
    st.text(max_size=12),
    st.builds(
        "{}-{}/{}{}".format,
        st.sampled_from(["WaveMix", "WaveMix-Lite", "wavemix", "WaveMix-", "ConvMixer"]),
        st.sampled_from([4, 8, 12, 6, 0, -4, "x", ""]),
        st.sampled_from([1, 2, 0, -1, "x", "1.5"]),
        st.sampled_from(
            ["", " (level 1)", " (level 3)", " (level 0)", " (ff 8)", " (ff 7, mul 1)", " (mul)", " (", "()"]
        ),
    ),
)
FIELDS = ("dim", "depth", "level", "ff", "mult", "in_channels", "stride", "patch_size", "dropout", "head_dim")
CHOICES = {
    "stem": ["strided", "patchify", "x", None],
    "mixer": ["dwt", "dwt-single", "none", "dft", "random", "maxpool", "lifting", "x"],
    "upsample": ["deconv", "bilinear", "idwt", "x"],
    "wavelet": ["haar", "db2", "bior1.3", "x", ""],
}
OVERRIDES = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(FIELDS, VALUES), **{name: st.sampled_from(known) for name, known in CHOICES.items()}}
).filter(lambda chosen: len(chosen) < 5)


@settings(max_examples=60)
@given(
    notation=NOTATIONS,
    overrides=OVERRIDES,
    classes=st.one_of(st.integers(1, 5), NUMBERS),
    task=st.sampled_from(["classification", "segmentation", "x"]),
    side=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_model_or_a_clear_error(
    notation: str, overrides: dict[str, Any], classes: Any, task: Any, side: tuple[int, int]
) -> None:
    try:
        config = WaveMixConfig.from_notation(notation, **overrides)
        model = create_model(config, classes, task).eval()
        with torch.no_grad():
            logits = model(torch.zeros(1, config.in_channels, *side))
    except InputError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert "\n" not in refused
        return
    assert WaveMixConfig.from_notation(config.notation, **{name: getattr(config, name) for name in FIELDS}) is not None
    assert logits.shape == ((1, classes) if task == "classification" else (1, classes, *side))
    assert torch.isfinite(logits).all()


OPTIONS = (
    *("data.batch_size", "data.val_fraction", "data.split_seed", "data.augment", "data.image_size", "data.mean"),
    *("data.regularization.mixup", "data.regularization.erasing", "model.variant", "model.overrides", "model.weights"),
    *("model.label_smoothing", "model.optimizer", "model.optimizer.lr", "model.lr_scheduler", "model.execution"),
    *("model.lr_interval", "model.freeze", "trainer.precision", "trainer.callbacks", "trainer.gradient_clip_val"),
    *("trainer.accumulate_grad_batches", "trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.logger"),
    *(
        "trainer.val_check_interval",
        "trainer.check_val_every_n_epoch",
        "trainer.num_sanity_val_steps",
        "seed_everything",
    ),
    *("trainer.deterministic", "trainer.log_every_n_steps", "trainer.max_time", "trainer.profiler", "ckpt_path"),
    *("checkpoint_last.every_n_train_steps", "checkpoint_best.save_top_k", "finite_loss.skip", "data", "model"),
    *("seed_everything", "nope"),
)
TYPED = st.one_of(
    st.integers(-2, 5).map(str),
    st.sampled_from(
        ["", "nan", "1e400", "true", "null", "[1,2]", "{a: 1}", "[", "{", "x", "ä", "SGD", "'", "--", "*a", "!!x"]
    ),
)


def _command_line(run: Run, data_root: Path, typed: dict[str, str]) -> None:
    options = [f"--{name}={value}" for name, value in typed.items()]
    data = ("--data=FashionMNIST", f"--data.root={data_root}")
    code = run("fit", *data, *SMALL, "--trainer.fast_dev_run=1", "--trainer.default_root_dir=run", *options)
    assert code in (0, 2)


EVERY: dict[str, Any] = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


@settings(max_examples=4, **EVERY)
@given(typed=st.dictionaries(st.sampled_from(OPTIONS), TYPED, min_size=1, max_size=2))
def test_a_run_or_a_clear_error(run: Run, data_root: Path, typed: dict[str, str]) -> None:
    _command_line(run, data_root, typed)


@pytest.mark.slow
@settings(max_examples=80, **EVERY)
@given(typed=st.dictionaries(st.sampled_from(OPTIONS), TYPED, min_size=1, max_size=2))
def test_many_runs_or_clear_errors(run: Run, data_root: Path, typed: dict[str, str]) -> None:
    _command_line(run, data_root, typed)
