import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddrep.config import FineTune, Pretrain
from ddrep.data.shards import LabelledImages
from ddrep.denoiser.loss import denoising_loss
from ddrep.errors import UserError
from ddrep.training.finetune import finetune
from ddrep.training.objective import PartDropout, compile_where_it_pays, largest_that_fits, loss_in_parts
from tests import tiny


def _inputs(batch: int = 10) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(batch, 1, 8, 8, generator=g) for _ in range(2))
    return x0, torch.randint(1000, (batch,), generator=g), noise, torch.randint(4, (batch,), generator=g)


@pytest.mark.parametrize("micro_batch, sizes", [(None, [10]), (4, [4, 4, 2]), (1, [1] * 10), (99, [10])])
def test_the_parts_sum_to_the_loss_of_the_batch_and_to_its_gradient(micro_batch, sizes, monkeypatch):
    model, inputs, seen = tiny.denoiser(4), _inputs(), []
    model.net.requires_grad_(True)
    model.net.register_forward_pre_hook(lambda net, given: seen.append(len(given[0])))
    whole = denoising_loss(model, *inputs)
    whole.backward()
    expected = {name: p.grad.clone() for name, p in model.net.named_parameters() if p.grad is not None}
    model.net.zero_grad()
    seen.clear()
    total = 0.0
    for part in loss_in_parts(model, FineTune(batch=10, precision="fp32"), micro_batch)(*inputs):
        part.backward()
        total += part.item()
    assert seen == sizes and total == pytest.approx(whole.item(), rel=1e-6)
    for name, p in model.net.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-6)


def _colour(data: LabelledImages) -> LabelledImages:
    """Three channels, whose tensors torch lays out channels last."""
    return LabelledImages(data.images * np.array([1, 0, 1], np.uint8), data.labels, data.keys, data.classes)


def test_a_micro_batch_changes_the_result_by_rounding_alone():
    """Two channels a group: a bias before a norm of one channel has no effect, and Adam steps by its rounding."""
    data = _colour(tiny.images())
    fields: dict[str, Any] = {"model_channels": 64, "dropout": 0.3, "in_channels": 3, "out_channels": 3}
    cfg = FineTune(steps=3, batch=9, lr=1e-3, warmup=2, ema_decay=0.5, flip=True, precision="fp32")
    whole = finetune(tiny.denoiser(**fields), data, cfg, seed=4).net.state_dict()
    parts = finetune(tiny.denoiser(**fields), data, cfg, seed=4, micro_batch=4).net.state_dict()
    start = tiny.denoiser(**fields).net.state_dict()
    learned, differ = (torch.cat([(whole[k] - than[k]).flatten() for k in start]) for than in (start, parts))
    assert differ.norm() < 1e-4 * learned.norm() and learned.norm() > 0.1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_of_a_part_is_that_of_the_whole(layout):
    x, layer = torch.randn(6, 3, 4, 4), PartDropout(0.4, batch=6)
    torch.manual_seed(1)
    expected = nn.Dropout(0.4)(x)
    for rows in (slice(0, 6), slice(0, 2), slice(2, 6), slice(5, 6)):
        torch.manual_seed(1)
        layer.rows = rows
        assert torch.equal(layer(x[rows].to(memory_format=layout)), expected[rows])
    layer.eval()
    assert torch.equal(layer(x[:2]), x[:2])


def test_networks_are_compiled_on_a_gpu_for_long_runs_alone():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for device, steps, compiled in [(cpu, 10**6, False), (gpu, 100, False), (gpu, 10**6, True)]:
        net = tiny.denoiser(4).net
        names = list(net.state_dict())
        compile_where_it_pays(net, device, steps)
        assert (net._compiled_call_impl is not None) == compiled
        assert list(net.state_dict()) == names
        assert copy.deepcopy(net)._compiled_call_impl is None, "the EMA is sampled from with other sizes"


def test_training_on_a_cpu_compiles_nothing(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda self: pytest.fail("compiled"))
    loss_in_parts(tiny.denoiser(), Pretrain(steps=10**6, batch=2))


@pytest.mark.parametrize("limit, found", [(100, 100), (99, 50), (50, 50), (49, 25), (2, 2), (1, 1)])
def test_the_micro_batch_is_halved_until_it_fits(limit, found):
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert largest_that_fits(attempt, 100) == found
    assert tried == [100, 50, 25, 13, 7, 4, 2, 1][: len(tried)] and len(tried) <= 2 + math.log2(100 / found)


def test_no_memory_for_a_single_image_is_one_line():
    def attempt(size: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="not the memory for a single image"):
        largest_that_fits(attempt, 3)
