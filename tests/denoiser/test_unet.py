"""Our U-Net against the published modules' stored outputs (see recipe.py) and against published sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddrep.denoiser.unet import UNet, UNetConfig
from tests.denoiser import recipe

REFERENCE = np.load(Path(__file__).with_name("unet_reference.npz"))


def _case(name: str, dtype: torch.dtype) -> tuple[UNet, list[torch.Tensor]]:
    case = {
        k.removeprefix("use_new_").replace("attention_order", "new_attention_order"): v
        for k, v in recipe.CASES[name].items()
    }
    cfg = UNetConfig(image_size=recipe.SIZE, attention_sizes=(recipe.ATTENTION_AT,), **recipe.COMMON, **case)
    net = UNet(cfg).to(dtype).eval()
    net.load_state_dict(recipe.fill({k: v.shape for k, v in net.state_dict().items()}), strict=True)
    x, t, y = recipe.inputs()
    return net, [x.to(dtype), t.to(dtype), *([y] if cfg.num_classes else [])]


def _relative_error(ours: torch.Tensor, reference: np.ndarray) -> float:
    difference = ours.double().numpy() - reference
    return float(np.sqrt(np.square(difference).mean() / np.square(reference).mean()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", recipe.CASES)
def test_output_and_blocks_equal_the_published_network(name, dtype, bound):
    net, args = _case(name, dtype)
    with torch.no_grad():
        emb = net.embed(*args[1:])
        h, skips = net.encode(args[0], emb)
        out, taps = net.decode(h, skips, emb, taps=recipe.TAPS)
        again = net(*args)
    assert out is not None and torch.equal(out, again)
    assert _relative_error(out, REFERENCE[f"{name}/out"]) < bound
    assert _relative_error(h[:, ::4], REFERENCE[f"{name}/middle"]) < bound
    for i in recipe.TAPS:
        assert _relative_error(taps[i][:, ::8, ::2, ::2], REFERENCE[f"{name}/{i}"]) < bound


@pytest.mark.parametrize(
    ("cfg", "parameters", "tensors"),
    [
        (UNetConfig(64, out_channels=6), 121_063_942, 450),
        (
            UNetConfig(
                256, out_channels=6, model_channels=256, channel_mult=(1, 1, 2, 2, 4, 4), num_res_blocks=2,
                attention_sizes=(32, 16, 8), num_head_channels=64, resblock_updown=True,
            ),
            552_814_086, 566,
        ),
    ],
    ids=["imagenet64", "ffhq256"],
)  # fmt: skip
def test_published_architectures_have_the_published_sizes(cfg, parameters, tensors):
    with torch.device("meta"):
        state = UNet(cfg).state_dict()
    assert (sum(v.numel() for v in state.values()), len(state)) == (parameters, tensors)


def test_decoding_stops_behind_the_last_tap_asked_for():
    net, args = _case("improved_scale_shift", torch.float32)
    emb = net.embed(args[1])
    h, skips = net.encode(args[0], emb)
    _, all_taps = net.decode(h, skips, emb, taps=(1,))
    out, taps = net.decode(h, skips, emb, taps=(1,), stop=1)
    assert out is None and torch.equal(taps[1], all_taps[1])
    assert net.cfg.level_ends == {"up1": 1, "up2": 3}


def test_odd_sizes_come_back_to_the_input_size():
    net = UNet(UNetConfig(28, 1, 1, model_channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, attention_sizes=()))
    assert net(torch.zeros(2, 1, 28, 28), torch.zeros(2)).shape == (2, 1, 28, 28)


def test_gradient_checkpointing_changes_no_gradient():
    net, args = _case("improved_scale_shift", torch.float64)
    x = args[0].requires_grad_()
    plain = torch.autograd.grad(net(x, args[1]).square().sum(), x)[0]
    net.gradient_checkpointing = True
    assert torch.allclose(torch.autograd.grad(net(x, args[1]).square().sum(), x)[0], plain, rtol=1e-12)


def test_a_conditional_network_wants_labels():
    net, args = _case("improved_classes", torch.float32)
    with pytest.raises(ValueError, match="null row"):
        net(*args[:2])
