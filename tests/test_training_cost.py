"""What training on several devices costs, against what torch sends and what the formulas of layers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from wavemix_pl import create_model
from wavemix_pl.training_cost import Cost, Machine, main, measure, step_cost

MACHINE = Machine(1e12, 1e9, 1e-5)


def test_size() -> None:
    """A pass backwards costs as much as two forwards, but for the first layer, which needs no gradient of the image."""
    size = measure("WaveMix-16/2 (level 2)", 7, 32, stem="patchify")
    model = create_model("WaveMix-16/2 (level 2)", 7, stem="patchify")
    assert size.params == sum(parameter.numel() for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert (size.norms, size.norm_channels) == (len(norms), sum(norm.num_features for norm in norms))
    macs: list[int] = []

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        """Each number of a convolution's output meets the weights of one of its channels; transposed, of its input."""
        numbers = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        macs.append(numbers.numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(count)
    model(torch.randn(1, 3, 32, 32))
    assert size.flops == 2 * (3 * sum(macs) - macs[0])


def test_gradients_that_are_sent(tmp_path: Path) -> None:
    """The buckets of DistributedDataParallel hold 4 bytes for each parameter."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(create_model("WaveMix-8/2 (level 2)", 4))
        sent: list[int] = []

        def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch wants the types themselves, or none
            sent.append(bucket.buffer().nbytes)
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        model.register_comm_hook(None, hook)
        model(torch.randn(2, 3, 32, 32)).sum().backward()
    finally:
        dist.destroy_process_group()
    size = measure("WaveMix-8/2 (level 2)", 4, 32)
    assert sum(sent) == 4 * size.params
    without_norms = type(size)(size.flops, size.params, 0, 0)
    assert step_cost(without_norms, MACHINE, 2, 1).sent == sum(sent)
    assert step_cost(without_norms, MACHINE, 8, 1).sent == 2 * 7 / 8 * sum(sent)


def test_hours() -> None:
    assert step_cost(measure("WaveMix-8/1 (level 2)", 4, 32), MACHINE, 1, 8).communicate == 0
    assert Cost(0, 2.0, 1.0).hours(1800) == (1.0, 1.5)
    assert Cost(0, 1.0, 2.0).hours(1800) == (1.0, 1.5)


def test_the_table_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    readme = (Path(__file__).parents[1] / "experiments" / "README.md").read_text()
    assert all(line in readme for line in capsys.readouterr().out.splitlines())
