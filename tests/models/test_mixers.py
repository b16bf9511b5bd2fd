"""The token mixers that the paper tried in the place of its DWT (Section 4.6), alone and in models."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wavemix_pl import WaveMixConfig, create_model
from wavemix_pl.errors import InputError
from wavemix_pl.models.mixers import MIXERS, Lifting
from wavemix_pl.models.wavelets import dwt2
from wavemix_pl.models.wavemix import WaveMixBlock

IN_PLACE_OF_DWT: list[Any] = ["none", "dft", "random", "maxpool", "lifting"]
WITH_LEVELS: list[Any] = ["random", "maxpool", "lifting"]
SIZES = [(8, 12), (7, 9), (1, 5), (2, 1)]


def deepest(mixer: str) -> int:
    return 3 if mixer in WITH_LEVELS else 1


def image(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def small_model(mixer: str, name: str = "WaveMix-8/2", **overrides: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, 3, **{"level": deepest(mixer), "dropout": 0.0, "mixer": mixer, **overrides})


def scramble_filters(mixer: nn.Module) -> None:
    """As if lifting had learned: no filter is symmetric, or that of another channel or direction."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(generator=generator)


@settings(max_examples=100)
@given(
    mixer=st.sampled_from(sorted(MIXERS)),
    level=st.integers(1, 4),
    channels=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_maps_are_as_a_mixer_says(mixer: str, level: int, channels: int, height: int, width: int) -> None:
    """As many as factors; `expansion` times the channels; enlarged by its factor, each covers the next finer one."""
    level = level if mixer in (*WITH_LEVELS, "dwt", "dwt-single") else 1
    made = MIXERS[mixer](channels, level, "haar")
    maps = made(torch.randn(2, channels, height, width))
    for out, factor in zip(maps, made.factors, strict=True):
        height, width = -(-height // factor), -(-width // factor)
        assert out.shape == (2, channels * made.expansion, height, width)


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_path_gets_the_width_of_the_block(mixer: Any, level: int) -> None:
    if mixer in ("none", "dft"):
        level = 1
    block = WaveMixBlock(WaveMixConfig(dim=16, depth=1, level=level, mixer=mixer))
    assert [path.expand.in_channels for path in block.paths] == [24] * (len(block.paths) - 1) + [16]
    assert {out.shape[1] for out in block.mixer(block.reduce(torch.randn(1, 16, 8, 8)))} == {16}


@pytest.mark.parametrize(
    ("mixer", "counted"),
    [
        ("dwt", 9_602_250),
        ("random", 9_602_250),
        ("lifting", 9_602_250 + 7 * 2 * 2 * 3 * 64),  # a block: 2 directions, 2 filters of 3 taps, 64 channels
        ("maxpool", 9_602_250 + 7 * (256 + 1) * (256 - 64)),  # a block: `reduce` keeps 256 channels, not 64
        ("none", 9_947_658 - 7 * 256 * 256 * (4**2 - 3**2)),  # as before; and kernels of 3x3, not 4x4
        ("dft", 6_736_394),
    ],
)
def test_parameters_of_lite_256_7(mixer: str, counted: int) -> None:
    with torch.device("meta"):
        model = create_model("WaveMix-Lite-256/7", 10, mixer=mixer)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted


def test_state_of_a_dwt_model_has_no_mixer() -> None:
    """Weights saved before there were other mixers still fit."""
    for mixer in ("dwt", "dwt-single", "none", "dft", "maxpool"):
        assert not [key for key in small_model(mixer).state_dict() if "mixer" in key]


def test_none_is_the_reduced_map() -> None:
    x = image(7, 9)
    (out,) = MIXERS["none"](3, 1, "haar")(x)
    assert torch.equal(out, x)


@pytest.mark.parametrize("size", SIZES)
def test_dft_is_numpys(size: tuple[int, int]) -> None:
    x = image(*size)
    (out,) = MIXERS["dft"](3, 1, "haar")(x)
    np.testing.assert_allclose(out, np.fft.fft2(x.numpy(), norm="ortho").real, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dft_of_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """Back in the precision that came in, with and without autocast, and no worse than the exact one rounded."""
    x = image(12, 20, dtype=dtype)
    exact = torch.fft.fft2(x.double(), norm="ortho").real
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            (out,) = MIXERS["dft"](3, 1, "haar")(x)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_maxpool_is_that_of_torch(size: tuple[int, int]) -> None:
    x = image(*size)
    maps = MIXERS["maxpool"](3, 3, "haar")(x)
    for found in maps:
        rows, columns = (side % 2 for side in x.shape[-2:])
        x = F.max_pool2d(F.pad(x, (0, columns, 0, rows), mode="replicate"), 2)
        assert torch.equal(found, x)


def test_random_filters() -> None:
    """Of norm 1; the level's maps by explicit products; ordered as `dwt2` orders those of Haar."""
    mixer = MIXERS["random"](3, 2, "haar").double()
    filters: Tensor = mixer.filters  # type: ignore[assignment]  # a buffer
    assert filters.shape == (4, 1, 2, 2)
    torch.testing.assert_close(filters.square().sum((1, 2, 3)), torch.ones(4, dtype=torch.float64))
    fine, coarse = mixer(image(8, 12))
    for found, x in ((fine, image(8, 12)), (coarse, fine[:, :3])):
        cells = x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2))  # B C H 2 W 2
        expected = torch.einsum("bchiwj,fij->bfchw", cells, filters[:, 0])
        torch.testing.assert_close(found[:, :3], expected[:, 0])
        for channel in range(3):
            torch.testing.assert_close(found[:, 3 + 3 * channel : 6 + 3 * channel], expected[:, 1:, channel])


def test_random_filters_could_be_haars() -> None:
    """Then all is as with Haar: the order of the channels, the scale, odd sides."""
    mixer = MIXERS["random"](3, 3, "haar").double()
    haar = torch.tensor([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]])
    mixer.filters.copy_(haar[:, None] / 2)  # type: ignore[operator]  # a buffer
    for size in SIZES:
        torch.testing.assert_close(mixer(image(*size)), dwt2(image(*size), 3))


def test_random_filters_are_fixed() -> None:
    """Each block has its own, which training leaves alone, and which a saved state brings back."""
    model = small_model("random").train()
    filters = {name: value.clone() for name, value in model.named_buffers() if name.endswith("mixer.filters")}
    assert len(filters) == 2
    assert not torch.equal(*filters.values())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(image(8, 8, dtype=torch.float32)).square().sum().backward()
    optimizer.step()
    for name, before in filters.items():
        assert torch.equal(model.get_buffer(name), before)
        assert not model.get_buffer(name).requires_grad
    other = create_model(model.config, 3)
    assert not torch.equal(other.get_buffer(name), before)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.get_buffer(name), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
def test_lifting_starts_as_haar(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = image(*size, dtype=dtype)
    torch.testing.assert_close(Lifting(3, 3, "haar").to(dtype)(x), dwt2(x, 3))


def test_a_model_that_lifts_starts_as_one_with_haar() -> None:
    """With the same seed: filters draw no random numbers."""
    models = [small_model(mixer, level=3).double().eval() for mixer in ("dwt", "lifting")]
    torch.testing.assert_close(*(model(image(13, 16)) for model in models))


def lifted(signal: np.ndarray, update: np.ndarray, predict: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One level along the last axis, of one channel, by its equations."""

    def filtered(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
        padded = np.concatenate((x[..., :1], x, x[..., -1:]), axis=-1)
        return sum(tap * padded[..., i : i + x.shape[-1]] for i, tap in enumerate(taps))  # type: ignore[return-value]

    even, odd = signal[..., 0::2], signal[..., 1::2]
    low = even + filtered(odd, update)
    return low, filtered(low, predict) - odd


@pytest.mark.parametrize("size", [(8, 12), (2, 6), (4, 2)])
def test_lifting_by_its_equations(size: tuple[int, int]) -> None:
    mixer = Lifting(3, 1, "haar").double()
    scramble_filters(mixer)
    found = mixer(image(*size))[0].detach().numpy()
    vertical, horizontal = (
        [parameter.detach().numpy() for parameter in getattr(mixer.levels[0], direction).parameters()]
        for direction in ("vertical", "horizontal")
    )
    for channel in range(3):
        update, predict = (taps[channel] for taps in vertical)
        columns = lifted(image(*size)[:, channel].numpy().swapaxes(-2, -1), update, predict)
        update, predict = (taps[channel] for taps in horizontal)
        (ll, hl), (lh, hh) = (lifted(half.swapaxes(-2, -1), update, predict) for half in columns)
        np.testing.assert_allclose(found[:, channel], ll / 2)
        for i, (band, scale) in enumerate(((lh, 1), (hl, 1), (hh, 2))):
            np.testing.assert_allclose(found[:, 3 + 3 * channel + i], scale * band)


def test_gradients_of_lifting_are_those_of_differences() -> None:
    mixer = Lifting(2, 2, "haar").double()
    scramble_filters(mixer)
    names, filters = zip(*mixer.named_parameters(), strict=True)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)

    def maps(x: Tensor, *filters: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = torch.func.functional_call(mixer, dict(zip(names, filters, strict=True)), x)
        return tuple(found)

    assert torch.autograd.gradcheck(maps, (x, *filters))


def test_lifting_learns() -> None:
    """A step changes each of its filters, those of every level, direction and channel."""
    model = small_model("lifting").train()
    mixer = model.blocks[0].mixer
    before = deepcopy(mixer.state_dict())
    assert len(list(mixer.parameters())) == 3 * 2 * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(image(32, 32, dtype=torch.float32)).square().sum().backward()
    optimizer.step()
    for name, filters in mixer.state_dict().items():
        assert (filters != before[name]).any(dim=1).all(), name


@pytest.mark.parametrize("mixer", IN_PLACE_OF_DWT)
@pytest.mark.parametrize("upsample", ["deconv", "bilinear"])
def test_models_take_any_size_and_train(mixer: str, upsample: str) -> None:
    """Each parameter gets a gradient, in a classifier and in a segmenter."""
    for task in ("classification", "segmentation"):
        model = small_model(mixer, task=task, upsample=upsample)
        for size in ((16, 16), (13, 11), (5, 22)):
            out = model(image(*size, dtype=torch.float32))
            assert out.shape == ((2, 3) if task == "classification" else (2, 3, *size))
        out.square().sum().backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("mixer", IN_PLACE_OF_DWT)
def test_state_dict_round_trip(mixer: str) -> None:
    model = small_model(mixer).eval()
    scramble_filters(model.blocks)
    torch.manual_seed(3)
    other = create_model(model.config, 3).eval()
    images = image(13, 11, dtype=torch.float32)
    assert not torch.allclose(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize(
    "mixer", [mixer if mixer == "dft" else pytest.param(mixer, marks=pytest.mark.slow) for mixer in IN_PLACE_OF_DWT]
)
def test_torch_compile_has_no_graph_breaks(mixer: str) -> None:
    model = small_model(mixer).double().train()
    expected = deepcopy(model)
    model.compile(backend="aot_eager", fullgraph=True)
    for form in (model, expected):
        form(image(13, 16)).square().sum().backward()
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.parametrize("mixer", IN_PLACE_OF_DWT)
@pytest.mark.parametrize("execution", ["plain", "fast", "lean", "checkpointed"])
def test_under_autocast(mixer: str, execution: Any) -> None:
    """Near what float64 gives, forward and backward, with gradients in the parameters' precision."""
    model = small_model(mixer, name="WaveMix-32/2").train()
    model.execution = execution
    exact = deepcopy(model).double()
    exact.execution = "plain"
    with torch.autocast("cpu", torch.bfloat16):
        out = model(image(16, 16, dtype=torch.float32))
    expected = exact(image(16, 16))
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()
    for logits in (out, expected):
        logits.float().square().sum().backward()
    found, wanted = (
        torch.cat([parameter.grad.flatten().double() for parameter in form.parameters()]) for form in (model, exact)
    )
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    assert F.cosine_similarity(found, wanted, dim=0) > 0.98


@pytest.mark.parametrize("mixer", ["none", "dft"])
def test_what_keeps_the_resolution_has_no_levels(mixer: Any) -> None:
    with pytest.raises(InputError, match=f"mixer='{mixer}' has no levels: level must be 1, got 2"):
        WaveMixConfig(dim=8, depth=1, level=2, mixer=mixer)


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("level", [1, 2])
def test_idwt_needs_factors_of_two(mixer: Any, level: int) -> None:
    """What the config refuses is what the mixer's factors do not suit."""
    if mixer in ("none", "dft"):
        level = 1
    if set(MIXERS[mixer](2, level, "haar").factors) == {2}:
        block = WaveMixBlock(WaveMixConfig(dim=8, depth=1, level=level, mixer=mixer, upsample="idwt"))
        assert block(torch.randn(2, 8, 7, 9)).shape == (2, 8, 7, 9)
    else:
        with pytest.raises(InputError, match=r"upsample='idwt' doubles the sides, .* needs a factor of (1|4)"):
            WaveMixConfig(dim=8, depth=1, level=level, mixer=mixer, upsample="idwt")


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_wavelets_are_of_the_dwt(mixer: Any) -> None:
    if mixer in ("dwt", "dwt-single"):
        assert WaveMixConfig(dim=8, depth=1, mixer=mixer, wavelet="db2").wavelet == "db2"
    else:
        with pytest.raises(InputError, match=r"wavelet is of mixer 'dwt' and 'dwt-single'.*leave it out"):
            WaveMixConfig(dim=8, depth=1, mixer=mixer, wavelet="db2")
