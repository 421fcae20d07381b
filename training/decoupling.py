"""A term that decouples chosen prototypes: driving s_j changes x̂₀ in s_j, and not in s_k.

A part of the batch is predicted once more, from the same x_t, under do(s_j): with the s_j of another image,
its donor, and all other entries kept. Both predictions x̂₀ are read by the encoder, held fixed, and asked for

    s_k(x̂₀ | do(s_j)) = s_k(x̂₀ of the image itself)        for all k that j is to be decoupled from,
    s_j(x̂₀ | do(s_j)) at least half way to s_j(x̂₀ of the donor), so that ignoring s_j is no way out,

each as a squared difference in standard deviations. All images of the part share one timestep, so that a
donor's prediction says what can be asked there, which the s that it was given would not: x̂₀ is blurred. Right
sides carry no gradient: what is plainly predicted is the denoising error's to say. Left sides have one into
the denoiser only, bounded for every image (`training.reencoding`): prototypes mean what they meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.patronus import Patronus, to_x_0_hat
from training.gathering import gather_rows
from training.reencoding import bounded_slope, fixed_activations

SHARE = 4
"""One image in so many is predicted under an intervention."""
LATEST = 0.5
"""The timestep lies between this share of T and T. Nearer to 0, x_t itself shows what is where, and following
s against it would cost fidelity: of what the donor has, predictions of the shipped Fashion-MNIST model follow
16% at 0.15 T, 34% at 0.3 T, 44% at 0.5 T and 46% from 0.6 T on, and other prototypes move the most there too.
What emerges later (`model.emergence`) is decided in this half."""
FOLLOWED = 0.5
"""The share of the way that s_j has to go: about what models go by themselves."""
LEAST_UNIT = 0.01
"""Changes are counted in standard deviations of s (0 … 9.21), at least of this size: a dead prototype's would
make its pairs outweigh everything."""


class Intervention(NamedTuple):
    """do(s_j) of one step, for n of this process' images.

    rows: (n,) which of them; donors: (n,) whose s_j each takes, among those of all processes; prototypes:
    (n,) j; timestep: () shared. num_rows: n of all processes together.
    """

    rows: Tensor
    donors: Tensor
    prototypes: Tensor
    timestep: Tensor
    num_rows: int


class DecouplingLosses(NamedTuple):
    """Scalars: mean squared change of s_k under do(s_j), and what s_j lacks of its way, in deviations.

    `total` is their sum with the gradient; they have none.
    """

    total: Tensor
    leakage: Tensor
    shortfall: Tensor


def draw_intervention(
    pairs: Sequence[Sequence[int]],
    *,
    batch_size: int,
    share: slice,
    num_timesteps: int,
    generator: torch.Generator,
) -> Intervention:
    """The intervention of a step on a batch of `batch_size`, as far as it concerns the images in `share`.

    Prototypes j of `pairs` take turns, from a random one on. A donor is the image a random way further on in
    the part, which is one never met by its own.
    """
    device = generator.device
    sources = torch.tensor(sorted({j for j, _ in pairs}), device=device)
    part = torch.arange(0, batch_size, SHARE, device=device)
    if len(part) < 2:
        part = torch.arange(2, device=device)  # an image needs a donor
    n = len(part)
    first, way, time = torch.rand(3, generator=generator, device=device, dtype=torch.float64).unbind()
    order = torch.arange(n, device=device)
    donors = part[(order + 1 + (way * (n - 1)).long()) % n]
    prototypes = sources[(order + (first * len(sources)).long()) % len(sources)]
    latest = round(LATEST * num_timesteps)
    is_here = (part >= share.start) & (part < share.stop)
    return Intervention(
        rows=part[is_here] - share.start,
        donors=donors[is_here],
        prototypes=prototypes[is_here],
        timestep=latest + (time * (num_timesteps - latest)).long(),
        num_rows=n,
    )


class Decoupling(nn.Module):
    """The term for ordered pairs (j, k) of `num_prototypes` prototypes."""

    is_affected: Tensor

    def __init__(self, pairs: Sequence[Sequence[int]], num_prototypes: int) -> None:
        super().__init__()
        is_affected = torch.zeros(num_prototypes, num_prototypes)  # [j, k] of 1 and 0
        for j, k in pairs:
            is_affected[j, k] = 1.0
        self.register_buffer("is_affected", is_affected, persistent=False)

    def forward(
        self,
        patronus: Patronus,
        x_0: Tensor,
        eps: Tensor,
        s: Tensor,
        everyones_s: Tensor,
        spread: Tensor,
        intervention: Intervention,
    ) -> DecouplingLosses:
        """x_0, eps (B, C, H, W), s (B, m) of this process; everyones_s (B of all of them, m); spread (m,).

        None of s needs a gradient. The mean over processes of what is returned is that over the whole part.
        """
        rows, donors, prototypes, timestep, num_rows = intervention
        at_j = prototypes[:, None]  # (n, 1)
        own = s[rows]  # (n, m)
        driven = own.scatter(1, at_j, everyones_s[donors].gather(1, at_j))
        plain = own
        x_0_hat = x_0[rows]
        if len(rows):
            timesteps = timestep.expand(len(rows))
            noised = patronus.add_noise(x_0[rows], eps[rows], timesteps)
            with _without_dropout(patronus.denoiser):  # its masks would differ between the two
                with torch.no_grad():
                    plain = fixed_activations(patronus.encoder, _predict(patronus, *noised, timesteps, own))
                x_0_hat = _predict(patronus, *noised, timesteps, driven)
        everyones_plain = gather_rows(s.new_zeros(s.shape).index_copy(0, rows, plain))
        is_affected = self.is_affected[prototypes]  # (n, m)
        with torch.enable_grad():
            seen = x_0_hat.detach().requires_grad_()
            intervened = fixed_activations(patronus.encoder, seen)
            change = ((intervened - plain) / spread).square()
            leakages = (change * is_affected).sum(dim=1) / is_affected.sum(dim=1)  # (n,)
            way = (everyones_plain[donors] - plain).gather(1, at_j) / spread[at_j]  # (n, 1)
            gone = (intervened - plain).gather(1, at_j) / spread[at_j]
            shortfalls = functional.relu(FOLLOWED * way.abs() - gone * way.sign()).square()[:, 0]
            (slope,) = torch.autograd.grad((leakages + shortfalls).sum(), seen)  # like x_0_hat
        weight = len(everyones_s) / len(s) / num_rows  # of an image, in the mean over processes
        leakage, shortfall = (part.detach().sum() * weight for part in (leakages, shortfalls))
        gradient = bounded_slope(x_0_hat, slope).sum() * weight
        return DecouplingLosses(gradient + leakage + shortfall, leakage, shortfall)


def _predict(
    patronus: Patronus, x_t: Tensor, alpha: Tensor, sigma: Tensor, timesteps: Tensor, s: Tensor
) -> Tensor:
    """x̂₀ (n, C, H, W) from x_t under s."""
    prediction = patronus(x_t, timesteps, s).float()
    return to_x_0_hat(prediction, x_t, alpha, sigma, patronus.config.prediction).clamp(-1.0, 1.0)


@contextmanager
def _without_dropout(denoiser: nn.Module) -> Iterator[None]:
    was_training = denoiser.training
    denoiser.eval()
    try:
        yield
    finally:
        denoiser.train(was_training)
