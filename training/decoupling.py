"""A term that decouples chosen prototypes: driving s_j changes x̂₀ in s_j, and not in s_k.

A part of the batch is predicted once more, from the same x_t, under do(s_j): with the s_j of another image,
its donor, and all other entries kept. Both predictions x̂₀ are read by the encoder, held fixed, and asked for

    s_k(x̂₀ | do(s_j)) = s_k(x̂₀ of the image itself)        for all k that j is to be decoupled from,
    s_j(x̂₀ | do(s_j)) = s_j(x̂₀ of the donor)               so that ignoring s_j is no way out,

each as a squared difference in standard deviations. All images of the part share one timestep, as x̂₀ is the
more blurred, and its s the lower, the noisier x_t: a donor's prediction at the same timestep says what can be
asked there, and the s that it was given would not. Right sides carry no gradient: what is plainly predicted
is the denoising error's to say. Left sides have one into the denoiser only: prototypes mean what they meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from model.patronus import Patronus, to_x_0_hat
from training.gathering import gather_rows

SHARE = 4
"""One image in so many is predicted under an intervention."""
EARLIEST, LATEST = 0.75, 0.25
"""Shares of T between which the timestep lies. Prototypes emerge at about 0.2 to 0.4: what they will be is
decided before, which is where an intervention can tell. Nearer to 1 all x̂₀ are the mean image, and nearer to
0 x_t itself shows what is where, and s has little left to say."""
LEAST_SPREAD = 0.01
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
    """Scalars: mean squared change of s_k under do(s_j), and mean squared miss of s_j, in deviations."""

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
    low, high = round(LATEST * num_timesteps), round(EARLIEST * num_timesteps)
    is_here = (part >= share.start) & (part < share.stop)
    return Intervention(
        rows=part[is_here] - share.start,
        donors=donors[is_here],
        prototypes=prototypes[is_here],
        timestep=low + (time * (high - low)).long(),
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
        plain = intervened = own.new_zeros(own.shape)
        if len(rows):
            timesteps = timestep.expand(len(rows))
            noised = patronus.add_noise(x_0[rows], eps[rows], timesteps)
            with _without_dropout(patronus.denoiser):  # its masks would differ between the two
                with torch.no_grad():
                    plain = _reread(patronus, *noised, timesteps, own)
                intervened = _reread(patronus, *noised, timesteps, driven)
        everyones_plain = gather_rows(s.new_zeros(s.shape).index_copy(0, rows, plain))
        is_affected = self.is_affected[prototypes]  # (n, m)
        change = ((intervened - plain) / spread).square()
        leakage = (change * is_affected).sum(dim=1) / is_affected.sum(dim=1)
        missed = (intervened - everyones_plain[donors]).gather(1, at_j) / spread[at_j]
        weight = len(everyones_s) / len(s) / num_rows  # of an image, in the mean over processes
        return DecouplingLosses(leakage.sum() * weight, missed.square().sum() * weight)


def _reread(
    patronus: Patronus, x_t: Tensor, alpha: Tensor, sigma: Tensor, timesteps: Tensor, s: Tensor
) -> Tensor:
    """Activations (n, m) of the x̂₀ that is predicted from x_t under s; no gradient reaches the encoder."""
    prediction = patronus(x_t, timesteps, s).float()
    x_0_hat = to_x_0_hat(prediction, x_t, alpha, sigma, patronus.config.prediction).clamp(-1.0, 1.0)
    fixed = {name: parameter.detach() for name, parameter in patronus.encoder.named_parameters()}
    activations: Tensor = functional_call(patronus.encoder, fixed, (x_0_hat,))[0]
    return activations


@contextmanager
def _without_dropout(denoiser: nn.Module) -> Iterator[None]:
    was_training = denoiser.training
    denoiser.eval()
    try:
        yield
    finally:
        denoiser.train(was_training)
