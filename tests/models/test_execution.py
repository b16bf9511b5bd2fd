"""The ways in which blocks run in training: the same numbers as the plain one, with less of what each is to save."""

from __future__ import annotations

import gc
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from wavemix_pl import create_model
from wavemix_pl.errors import InputError
from wavemix_pl.measurement import saved_for_backward
from wavemix_pl.models import fast
from wavemix_pl.models.cells import CellNorm, to_cells
from wavemix_pl.models.execution import Execution
from wavemix_pl.models.fast import _dropped

EXECUTIONS: list[Execution] = ["fast", "lean", "checkpointed"]


def losses_and_state(
    model: Any,
    execution: Execution,
    steps: int = 1,
    dtype: torch.dtype = torch.float64,
    size: tuple[int, int] = (16, 20),
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Losses, gradients of the first step, and the state after training on the same images from the same weights."""
    model = deepcopy(model).to(dtype).train()
    model.execution = execution
    torch.manual_seed(1)
    images = torch.randn(steps, 3, 3, *size, dtype=torch.float64).to(dtype)
    targets = torch.randint(5, (steps, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses, gradients = [], torch.empty(0)
    for batch, classes in zip(images, targets, strict=True):
        loss = F.cross_entropy(
            model(batch).flatten(2).mean(2) if hasattr(model.head, "scale") else model(batch), classes
        )
        loss.backward()
        losses.append(loss.detach())
        if not len(gradients):
            gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses), gradients, model.state_dict()


CASES: list[dict[str, Any]] = [
    *({"level": level} for level in (1, 2, 3, 4)),
    # on cells where the sides are even
    *({"level": 1, "dim": 8, "stem": stem, "ff": 12, "mult": 3} for stem in ("strided", "patchify")),
    {"level": 2, "stem": "patchify"},  # its convolutions merge; so do those of the next one
    {"level": 1, "dim": 64, "stride": 2},
    {"level": 3, "task": "segmentation"},
    {"level": 1, "dim": 48, "task": "segmentation"},  # so wide that the layers of its head merge
    {"level": 2, "upsample": "bilinear"},
    {"level": 2, "upsample": "idwt"},
    {"level": 2, "wavelet": "db2"},
    {"level": 2, "mixer": "dwt-single"},
    *({"level": 1, "mixer": mixer} for mixer in ("none", "dft")),
    *({"level": 2, "mixer": mixer} for mixer in ("random", "maxpool", "lifting")),
    *({"level": 1, "dim": 8, "mixer": mixer} for mixer in ("none", "random", "lifting")),  # narrow, but not on cells
    {"level": 1, "mixer": "none", "upsample": "bilinear"},
    {"level": 2, "mixer": "lifting", "task": "segmentation"},
    {"level": 2, "ff": 12, "mult": 3},
]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("size", [(16, 20), (13, 11)])
def test_same_training(case: dict[str, Any], execution: Execution, size: tuple[int, int]) -> None:
    """Losses, gradients, weights and batch statistics over three steps, in float64, where rounding hides nothing."""
    other = {name: value for name, value in case.items() if name not in ("level", "dim")}
    model = create_model(f"WaveMix-{case.get('dim', 16)}/3 (level {case['level']})", 5, dropout=0.0, **other)
    expected = losses_and_state(model, "plain", steps=3, size=size)
    found = losses_and_state(model, execution, steps=3, size=size)
    limit = 1e-5 if "wavelet" in other else 1e-10  # pytorch_wavelets' filters are float32
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit)
    assert any(name.endswith("num_batches_tracked") and int(value) == 3 for name, value in found[2].items())


@pytest.mark.parametrize("name", ["WaveMix-32/4 (level 2)", "WaveMix-Lite-32/4", "WaveMix-Lite-8/4"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_same_gradients_in_float32(execution: Execution, name: str) -> None:
    """To 1e-5 of their norm, or to three times the error of the plain form, which a narrow model makes large."""
    torch.manual_seed(0)
    model = create_model(name, 5, dropout=0.0)
    exact = losses_and_state(model, "plain")[1]
    forms: tuple[Execution, ...] = ("plain", execution)
    plain, found = (losses_and_state(model, form, dtype=torch.float32)[1] for form in forms)
    assert (found - exact).norm() < max(1e-5 * exact.norm(), 3 * (plain - exact).norm())


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_under_autocast(execution: Execution, level: int) -> None:
    """The error of bfloat16 is that of the plain form."""
    torch.manual_seed(0)
    model = create_model(f"WaveMix-{32 if level > 1 else 8}/4 (level {level})", 5, dropout=0.0)
    exact = losses_and_state(model, "plain")[1]
    errors = []
    for form in ("plain", execution):
        with torch.autocast("cpu", torch.bfloat16):
            found = losses_and_state(model, form, dtype=torch.float32)[1]  # type: ignore[arg-type]  # an Execution each
        errors.append(float((found - exact).norm() / exact.norm()))
    assert 1e-4 < errors[1] < 2 * errors[0]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_dropout_is_replayed(execution: Execution) -> None:
    """The gradient is that of the loss that was computed: against differences of it, with the same random numbers."""
    torch.manual_seed(0)
    model = create_model("WaveMix-8/2 (level 2)", 3, dropout=0.5).double().train()
    model.execution = execution
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def loss() -> Tensor:
        torch.manual_seed(5)
        total: Tensor = model(images).square().sum()
        return total

    loss().backward()
    weight = model.blocks[0].paths[1].expand.weight
    assert weight.grad is not None
    for at in ((0, 0), (3, 5), (7, 2)):
        differences = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                weight[at] += shift
                differences.append(float(loss()))
                weight[at] -= shift
        slope = (differences[0] - differences[1]) / 2e-5
        assert float(weight.grad[at]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("level", [1, 2])
def test_lean_draws_what_fast_draws_and_no_more(level: int) -> None:
    """So a run can go on with the other one, and its random numbers stay those of a run that was not interrupted."""
    model = create_model(f"WaveMix-8/2 (level {level})", 5, dropout=0.5)
    results, states = [], []
    for execution in ("fast", "lean"):
        results.append(losses_and_state(model, execution, steps=2)[2])  # type: ignore[arg-type]  # an Execution each
        states.append(torch.get_rng_state())
    torch.testing.assert_close(*results)
    assert torch.equal(*states)


@pytest.mark.parametrize("p", [0.5, 0.1, 0.75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dropout_strikes_as_often_as_it_should(p: float, dtype: torch.dtype) -> None:
    """Each element with probability p, whatever became of its neighbours; GELU and its slope vanish there."""
    torch.manual_seed(0)
    like = torch.empty(4, 16, 50, 50, dtype=dtype)
    offset = _dropped(like, p)
    dropped = offset != 0
    assert stats.binomtest(int(dropped.sum()), like.numel(), p).pvalue > 1e-3
    for dimension in range(4):
        here, there = dropped.narrow(dimension, 0, 3), dropped.narrow(dimension, 1, 3)
        together = int((here & there).sum())
        assert stats.binomtest(together, here.numel(), p * p).pvalue > 1e-4, dimension
    hidden = (20 * torch.randn(like.shape)).to(dtype).add_(offset).requires_grad_()
    F.gelu(hidden).sum().backward()
    assert hidden.grad is not None
    assert not F.gelu(hidden)[dropped].any()
    assert not hidden.grad[dropped].any()


def test_mean_of_dropout_is_no_dropout() -> None:
    torch.manual_seed(0)
    model = create_model("WaveMix-Lite-8/1", 5, dropout=0.3).train()
    model.execution = "fast"
    block, x = model.blocks[0], torch.randn(1, 8, 8, 8)
    path = block.paths[0]
    path.norm = nn.Identity()  # type: ignore[assignment]  # its statistics would change with each mask
    mean = torch.stack([model_blocks(model, x) for _ in range(3000)]).mean(0)
    path.drop.p = 0.0
    torch.testing.assert_close(mean, model_blocks(model, x), rtol=0, atol=0.05)


def model_blocks(model: Any, x: Tensor) -> Tensor:
    from wavemix_pl.models.execution import run_blocks

    with torch.no_grad():
        return run_blocks(model.blocks, x, model.execution)


def test_memory() -> None:
    """Bytes that are kept for the backward pass, as shares of the plain form's."""
    model = create_model("WaveMix-Lite-32/7", 10).train().to(memory_format=torch.channels_last)
    images = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last)
    saved = {}
    for execution in ("plain", *EXECUTIONS):
        model.execution = execution  # type: ignore[assignment]  # an Execution each
        saved[execution] = saved_for_backward(lambda: model(images), model)
    assert saved["fast"] < 0.8 * saved["plain"]
    assert saved["lean"] < 0.35 * saved["plain"]
    assert saved["checkpointed"] < 0.35 * saved["plain"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_of_transposed_convolutions(dtype: torch.dtype) -> None:
    """They are put together otherwise than torch does; in bfloat16 no less exactly."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1).double()
    x, of_out = torch.randn(3, 12, 7, 9, dtype=torch.float64), torch.randn(3, 8, 14, 18, dtype=torch.float64)

    def gradients(form: Any, dtype: torch.dtype) -> Tensor:
        leaf = x.to(dtype).clone().requires_grad_()
        inputs = [leaf, *layer.to(dtype).parameters()]
        return torch.cat([one.flatten() for one in torch.autograd.grad(form(leaf), inputs, of_out.to(dtype))])

    exact = gradients(layer, torch.float64)
    error, usual = (
        float((gradients(form, dtype) - exact).norm() / exact.norm())
        for form in (lambda leaf: fast.conv_transpose(leaf, layer), layer)
    )
    assert error < max(1.5 * usual, 1e-14)


def test_merged_heads() -> None:
    """Where there are few classes; the widest map of the plain form is then neither made nor kept."""
    images = torch.randn(1, 3, 32, 32)
    for classes, merged in ((5, True), (40, False)):
        model = create_model("WaveMix-48/1 (level 1)", classes, task="segmentation").train()
        called = []
        model.head[2].register_forward_hook(lambda *_, called=called: called.append(True))
        model.execution = "fast"
        model(images).sum().backward()
        assert not called if merged else called
        assert all(parameter.grad is not None for parameter in model.head.parameters())
        fused = model.fuse()
        assert isinstance(fused.head[2], nn.Identity) == merged


def test_two_backward_passes_of_one_graph() -> None:
    """The rebuilt maps of a first pass do not leak into a second."""
    model = create_model("WaveMix-8/2 (level 2)", 5, dropout=0.0).double().train()
    model.execution = "lean"
    loss = model(torch.randn(2, 3, 16, 16, dtype=torch.float64)).square().sum()
    gradients = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", ["WaveMix-8/2 (level 2)", "WaveMix-Lite-8/2"])
def test_gradients_lie_as_maps_and_weights_do(name: str, execution: Execution) -> None:
    """Where those of the maps did not, training took a fifth longer."""
    model = create_model(name, 5).train().to(memory_format=torch.channels_last)
    model.execution = execution
    seen = []
    model.stem.register_full_backward_hook(lambda module, of_images, of_map: seen.append(of_map[0]))
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    model(images).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():  # as DistributedDataParallel wants it
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride(), parameter_name
    assert seen[0].shape == (2, 8, 16, 16)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_frozen_parameters() -> None:
    model = create_model("WaveMix-8/2 (level 2)", 5, dropout=0.0).double().train()
    model.stem.requires_grad_(False)
    model.blocks[0].paths.requires_grad_(False)  # type: ignore[attr-defined]  # a ModuleList
    images, found = torch.randn(2, 3, 16, 16, dtype=torch.float64), {}
    for execution in ("plain", *EXECUTIONS):
        model.execution = execution  # type: ignore[assignment]  # an Execution each
        model.zero_grad()
        model(images).square().sum().backward()
        found[execution] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for execution in EXECUTIONS:
        torch.testing.assert_close(found[execution], found["plain"])


def test_evaluation_is_plain() -> None:
    model = create_model("WaveMix-8/2 (level 2)", 5).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = model(images)
    for execution in EXECUTIONS:
        model.execution = execution
        assert torch.equal(model(images), expected)


def test_lean_needs_plain_batch_norms() -> None:
    model = create_model("WaveMix-8/2 (level 2)", 5).train()
    model.execution = "lean"
    model.blocks[1].paths[0].norm.eval()
    with pytest.raises(InputError, match="checkpointed"):
        model(torch.randn(2, 3, 16, 16))


def test_torch_compile_has_no_graph_breaks() -> None:
    """One graph forward, one backward; the keys of the state stay."""
    model = create_model("WaveMix-8/2 (level 2)", 5, dropout=0.0).train()
    expected = deepcopy(model)
    keys = list(model.state_dict())
    model.compile(backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, 16, 16)
    for form in (model, expected):
        form(images).square().sum().backward()
    assert list(model.state_dict()) == keys
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (7, 12)])
def test_narrow_models_run_on_cells_where_sides_are_even(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(fast, "to_cells", lambda x: called.append(x.shape) or to_cells(x))
    for dim in (8, 12):
        model = create_model(f"WaveMix-Lite-{dim}/1", 5).train()
        model.execution = "fast"
        model(torch.randn(2, 3, *size))
    assert len(called) == (size == (8, 12))


def test_norm_of_cells_is_batch_norm_of_pixels() -> None:
    """Outputs, gradients and running statistics, in float64; also where the pixels of a cell differ."""
    torch.manual_seed(0)
    pixels = torch.randn(3, 4, 6, 8, dtype=torch.float64)
    pixels[..., ::2, 1::2] += 3
    pixels[..., 1::2, :] *= 2
    results = []
    for in_cells in (False, True):
        norm = nn.BatchNorm2d(4).double()
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
        x = pixels.clone().requires_grad_()
        out = F.pixel_shuffle(CellNorm.apply(to_cells(x), norm.weight, norm.bias, norm), 2) if in_cells else norm(x)
        (out * torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
        results.append((out, x.grad, norm.weight.grad, norm.bias.grad, dict(norm.state_dict())))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_nothing_outlives_its_step(execution: Execution) -> None:
    """Maps are freed as the backward pass goes on, without waiting for the garbage collector."""
    model = create_model("WaveMix-8/3 (level 2)", 5).train()
    model.execution = execution
    images = torch.randn(2, 3, 16, 16)

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    counts = []
    gc.disable()
    try:
        for _ in range(3):
            model(images).square().sum().backward()
            model.zero_grad()
            counts.append(tensors())
    finally:
        gc.enable()
    assert counts[2] == counts[1]
