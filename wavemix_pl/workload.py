"""One model at work on random images, in one of the forms that `benchmark` compares."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavemix_pl.errors import InputError
from wavemix_pl.measurement import PeakMemory
from wavemix_pl.models.baselines import build_model
from wavemix_pl.models.published import published_model
from wavemix_pl.models.wavemix import WaveMix, WaveMixClassifier, WaveMixSegmenter
from wavemix_pl.models.weights import our_names

Task = Literal["classification", "segmentation"]
Precision = Literal["float32", "bfloat16", "float16"]
Form = Literal["published", "plain", "fused", "fast", "lean", "checkpointed", "compiled"]

INFERENCE_FORMS: tuple[Form, ...] = ("published", "plain", "fused", "compiled")
TRAINING_FORMS: tuple[Form, ...] = ("published", "plain", "fast", "lean", "checkpointed", "compiled")
_OF_EVERY_MODEL = ("plain", "compiled")  # the other forms are WaveMix's


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        model: In the paper's notation, or a peer as in `build_model`.
        form: "published" is the authors' package in float32 as it comes, channels first; "compiled" is torch.compile.
        precision: In inference of weights and images, in training by autocast.
        image_size: (rows, columns).
        batch_size: Images at a time.
        training: Forward, backward and optimizer step (AdamW), or inference.
        task: Which head the model has.
        num_classes: K.
        overrides: Fields of `WaveMixConfig`.
        channels_last: Whether the channels of a pixel lie side by side in memory.
        device: "cpu" or "cuda".
    """

    model: str
    form: Form = "plain"
    precision: Precision = "float32"
    image_size: tuple[int, int] = (224, 224)
    batch_size: int = 1
    training: bool = False
    task: Task = "classification"
    num_classes: int = 1000
    overrides: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        forms = TRAINING_FORMS if self.training else INFERENCE_FORMS
        if self.form not in forms:
            kind = "training" if self.training else "inference"
            raise InputError(f"form must be one of {', '.join(forms)} in {kind}, got {self.form!r}")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        if self.form == "published" and self.precision != "float32":
            raise InputError("the published package is measured in float32: it cannot train in another precision")


class Workload:
    """A case, ready to run. Equal cases but for their form have equal weights and images.

    Raises:
        InputError: No such model, or not in this form.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.device = case, torch.device(case.device)
        published = case.form == "published"
        self._layout = torch.channels_last if case.channels_last and not published else torch.contiguous_format
        self._dtype = getattr(torch, case.precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images = torch.randn(case.batch_size, case.overrides.get("in_channels", 3), *case.image_size)
            shape = (case.batch_size, *(case.image_size if case.task == "segmentation" else ()))
            self._targets = torch.randint(case.num_classes, shape).to(self.device)
            model = build_model(case.model, case.num_classes, case.task, case.overrides)
            self.params = sum(parameter.numel() for parameter in model.parameters())
            model = self._in_form(model)
        weights = torch.float32 if case.training else self._dtype
        self.model = model.to(self.device, weights).to(memory_format=self._layout)
        self._images = images.to(self.device, weights).to(memory_format=self._layout)
        if case.form == "compiled":
            self.model.compile()
        if case.training:
            self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=not published)

    def _in_form(self, model: nn.Module) -> nn.Module:
        case = self.case
        if case.form not in _OF_EVERY_MODEL and not isinstance(model, WaveMix):
            raise InputError(f"{case.model} has no form {case.form!r}, which is WaveMix's")
        model.train(case.training)
        if case.form == "published":
            theirs = published_model(cast(WaveMix, model).config, case.num_classes, case.task).train(case.training)
            names, ours = theirs.state_dict(), model.state_dict()
            theirs.load_state_dict({name: ours[our] for name, our in zip(names, our_names(names), strict=True)})
            return theirs
        if case.form == "fused":
            return cast(WaveMixClassifier | WaveMixSegmenter, model).fuse()
        if case.form in ("fast", "lean", "checkpointed"):
            cast(WaveMix, model).execution = case.form
        return model

    def forward(self) -> Tensor:
        """Logits."""
        mixed = self.case.training and self.case.precision != "float32"
        with torch.autocast(self.device.type, self._dtype, enabled=mixed), torch.inference_mode(not self.case.training):
            logits: Tensor = self.model(self._images)
        return logits

    def step(self) -> None:
        """What is timed."""
        logits = self.forward()
        if self.case.training:
            F.cross_entropy(logits.float(), self._targets).backward()
            self._optimizer.step()
            self._optimizer.zero_grad()


def peak_memory_gb(case: Case) -> float | None:
    """By how much the memory in use grows, at most, from before there is a model; None where nobody tells.

    In a process of its own, which leaves nothing of other models in memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_peak_memory_gb, case).result()


def _peak_memory_gb(case: Case) -> float | None:
    # what libraries need once and for all
    small = Case("WaveMix-Lite-8/1", precision=case.precision, image_size=(32, 32), batch_size=2, device=case.device)
    Workload(replace(small, training=case.training)).step()
    with torch.device("meta"):
        build_model(case.model, case.num_classes, case.task, case.overrides)
    with PeakMemory(torch.device(case.device)) as peak:
        workload = Workload(case)
        for _ in range(2):  # the optimizer's state comes with the first
            workload.step()
    return peak.bytes / 1e9 if peak.bytes is not None else None


def largest_batch(case: Case, budget_gb: float) -> int | None:
    """How many images fit, by a straight line through the memory that two batches take; None where nobody tells."""
    sizes = (case.batch_size, 2 * case.batch_size)
    small, large = (peak_memory_gb(replace(case, batch_size=size)) for size in sizes)
    if small is None or large is None or large <= small:
        return None
    for_each = (large - small) / case.batch_size
    return max(0, math.floor((budget_gb - small) / for_each) + case.batch_size)
