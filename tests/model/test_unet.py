from __future__ import annotations

import dataclasses

import pytest
import torch

from model.config import DenoiserConfig, paper_config, small_config
from model.patronus import Patronus
from model.unet import TimeEmbedding, UNet


def test_the_paper_preset_has_25_3_million_parameters() -> None:
    with torch.device("meta"):
        patronus = Patronus(paper_config(channels=3, num_prototypes=100))
    count = sum(parameter.numel() for parameter in patronus.parameters())
    assert round(count / 1e6, 1) == 25.3


@pytest.mark.parametrize("conditioning", ["add", "scale_shift"])
@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("attention", [False, True])
def test_output_has_the_shape_of_the_image(conditioning: str, patch_size: int, attention: bool) -> None:
    config = DenoiserConfig(
        base_channels=8,
        channel_multipliers=(1, 2, 2),
        num_residual_blocks=1,
        attention_levels=(attention,) * 3,
        norm_groups=4,
        conditioning=conditioning,  # type: ignore[arg-type]
        patch_size=patch_size,
    )
    network = UNet(config, image_channels=3, condition_width=7)
    x_t = torch.randn(2, 3, 16, 24)
    assert network(x_t, torch.tensor([0, 999]), torch.randn(2, 7)).shape == x_t.shape


def test_a_fresh_small_model_predicts_zero() -> None:
    patronus = Patronus(small_config())
    prediction = patronus(torch.randn(2, 1, 32, 32), torch.tensor([0, 999]), torch.rand(2, 30))
    assert bool((prediction == 0).all())


@pytest.mark.parametrize("conditioning", ["add", "scale_shift"])
def test_prediction_depends_on_timestep_and_condition(conditioning: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        small_config().denoiser,
        conditioning=conditioning,  # type: ignore[arg-type]
        zero_init=False,
        base_channels=8,
    )
    network = UNet(config, image_channels=1, condition_width=3).eval()
    x_t = torch.randn(1, 1, 8, 8)
    t, s = torch.tensor([10]), torch.zeros(1, 3)
    here = network(x_t, t, s)
    assert not torch.allclose(here, network(x_t, t + 500, s))
    assert not torch.allclose(here, network(x_t, t, s + 1))


def test_rows_of_a_batch_do_not_touch_one_another() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(small_config().denoiser, zero_init=False, base_channels=8)
    network = UNet(config, image_channels=1, condition_width=3).eval()
    x_t, t, s = torch.randn(4, 1, 8, 8), torch.tensor([1, 50, 300, 999]), torch.randn(4, 3)
    together = network(x_t, t, s)
    alone = torch.cat([network(x_t[i : i + 1], t[i : i + 1], s[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_time_embedding_is_sines_then_cosines() -> None:
    embedding = TimeEmbedding(base=8, width=4)
    seen: list[torch.Tensor] = []
    embedding.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embedding(torch.tensor([3]))
    angles = 3.0 * 10_000.0 ** (-torch.arange(4) / 3.0)
    torch.testing.assert_close(seen[0][0], torch.cat([angles.sin(), angles.cos()]))
