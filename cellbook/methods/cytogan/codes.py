"""What a trained model is used for: codes of cells, images of noise, and paths and sums in the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.cytogan.config import ADVERSARIAL, AUTOENCODERS
from cellbook.methods.cytogan.objective import ranged
from cellbook.training import State
from cellbook.training import codes as trained

FLAT = 1e-6  # sine of the angle between two codes below which their arc is a straight line


def encode(state: State, cells: CellSet) -> np.ndarray:
    """Representation of cells, (N, d) float32: the layer before the discriminator's last, or what an encoder gives.

    That is BEGAN's bottleneck, BiGAN's encoder, the mean code of the VAE. Batch norm in inference mode and no noise on
    the input, so that a cell always has one code.
    """
    reader = _reader(state)
    return trained.encode(
        state, cells, lambda x: reader.represent(ranged(x, state.config)), state.config.settings.latent
    )


def features(state: State, cells: CellSet, layer: int) -> np.ndarray:
    """Mean over pixels of what a convolution sees, 1 the first, of the network that `encode` reads: (N, filters)."""
    blocks = _reader(state).convolutions
    if not 1 <= layer <= len(blocks):
        raise CellbookError(f"layer={layer}: the network has convolutions 1 to {len(blocks)}")
    return layers(state, cells)[layer - 1]


def layers(state: State, cells: CellSet) -> list[np.ndarray]:
    """`features` of every layer, computed at once."""
    blocks = _reader(state).convolutions
    last = ([module for module in block if isinstance(module, nn.Conv2d)][-1] for block in blocks)
    ends = np.cumsum([convolution.out_channels for convolution in last])

    def pooled(x: Tensor) -> Tensor:
        return torch.cat([seen.mean((2, 3)) for seen in _reader(state).hidden(ranged(x, state.config))], 1)

    return np.split(trained.encode(state, cells, pooled, int(ends[-1])), ends[:-1], axis=1)


def decode(
    state: State, codes: np.ndarray, compound: str | None = None, concentration: float | None = None
) -> np.ndarray:
    """Images of codes, (N, d) -> (N, c, H, W) float32 in [0, 1]: by the generator, or an autoencoder's decoder.

    Parameters
    ----------
    state : State
    codes : numpy.ndarray
        Noise z, or what BiGAN's or an autoencoder's encoder gave. Representations of the other models cannot be
        turned into images.
    compound, concentration : str and float, optional
        Of a treatment that occurred in training, as a conditional model needs it.
    """
    z, d = torch.as_tensor(np.asarray(codes, dtype=np.float32)), state.config.settings.latent
    if z.ndim != 2 or z.shape[1] != d or len(z) == 0:
        raise CellbookError(f"codes have shape {tuple(z.shape)}: give at least one row of {d} numbers")
    told = _condition(state, compound, concentration)
    if state.config.model in AUTOENCODERS:
        return trained.decode(state, z, state.networks["decoder"])

    def image(part: Tensor) -> Tensor:
        return (state.networks["generator"](part, told.expand(len(part), -1)) + 1) / 2

    return trained.decode(state, z, image)


def noise(state: State, n: int, seed: int = 0) -> np.ndarray:
    """`n` draws of the noise that the model was trained with, (n, d); an autoencoder without a prior has none."""
    if state.config.model == "ae":
        raise CellbookError("model 'ae' has no distribution of codes: take another to draw images")
    if n < 1:
        raise CellbookError(f"n={n}: draw at least one")
    size, generator = (n, state.config.settings.latent), np.random.default_rng(seed)
    return generator.uniform(-1, 1, size) if state.config.prior == "uniform" else generator.standard_normal(size)


def sample(
    state: State, n: int, seed: int = 0, compound: str | None = None, concentration: float | None = None
) -> np.ndarray:
    """Images of `n` draws of the noise, (n, c, H, W) float32 in [0, 1]; see `decode` for the others."""
    return decode(state, noise(state, n, seed), compound, concentration)


def reconstruct(
    state: State, cells: CellSet, compound: str | None = None, concentration: float | None = None
) -> np.ndarray:
    """Images that the model makes of cells, (N, c, H, W) float32 in [0, 1]: of BEGAN, BiGAN and the autoencoders.

    A conditional BEGAN is told one treatment for all cells, as in `decode`.
    """
    return redraw(state, encode(state, cells), compound, concentration)


def redraw(
    state: State, codes: np.ndarray, compound: str | None = None, concentration: float | None = None
) -> np.ndarray:
    """Images of codes of cells, as `encode` gives them, or of what lies between; see `reconstruct`."""
    if state.config.model == "began":
        judge, told = state.networks["discriminator"], _condition(state, compound, concentration)

        def image(part: Tensor) -> Tensor:
            return ((judge.decoder(part, told.expand(len(part), -1)) + 1) / 2).clamp(0, 1)

        return trained.decode(state, torch.as_tensor(codes, dtype=torch.float32), image)
    if state.config.model not in ("bigan", *AUTOENCODERS):
        raise CellbookError(f"model {state.config.model!r} makes no image of a cell: take began, bigan, vae or ae")
    return decode(state, codes, compound, concentration)


def straight(start: np.ndarray, end: np.ndarray, steps: int = 10) -> np.ndarray:
    """Codes on straight lines, (..., d) twice -> (steps, ..., d), the ends among them."""
    start, end, t = _ends(start, end, steps)
    return (1 - t) * start + t * end


def slerp(start: np.ndarray, end: np.ndarray, steps: int = 10) -> np.ndarray:
    """Codes on arcs, (..., d) twice -> (steps, ..., d), the ends among them.

    Normal noise of d numbers lies near a shell of radius sqrt(d), which straight lines leave. Two codes that point the
    same or the opposite way, or are 0, have no arc: each such pair, and no other, gets the straight line.
    """
    start, end, t = _ends(start, end, steps)
    length = np.linalg.norm(start, axis=-1, keepdims=True) * np.linalg.norm(end, axis=-1, keepdims=True)
    cosine = (start * end).sum(-1, keepdims=True) / np.where(length > 0, length, 1)
    angle = np.arccos(cosine.clip(-1, 1))
    sine = np.sin(angle)
    flat = (sine < FLAT) | (length == 0)
    sine = np.where(flat, 1, sine)
    arcs = np.sin((1 - t) * angle) / sine * start + np.sin(t * angle) / sine * end
    return np.where(flat, (1 - t) * start + t * end, arcs)


def analogy(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The paper's arithmetic on noise, a - b + c, (d,): of codes, (d,) each, or of the means of several, (N, d).

    Images of one draw each, as in the paper, or of several. A sum of three draws is sqrt(3) times as long as one.
    """
    a, b, c = (np.atleast_2d(np.asarray(v, dtype=np.float64)).mean(axis=0) for v in (a, b, c))
    if not a.shape == b.shape == c.shape:
        raise CellbookError(f"the codes have {len(a)}, {len(b)} and {len(c)} numbers: give codes of one model")
    return a - b + c


@dataclass(frozen=True)
class Directions:
    """How many directions of the representation the discriminator's output sees, and where cells vary."""

    seen: np.ndarray  # (d,) shares of the directions in the squared slopes of the output, falling; sum 1
    varied: float  # share of the variance of the codes that lies along the first of them
    rank: float  # directions in which codes vary: (sum of variances)^2 / sum of squared variances, from 1 to d


def directions(state: State, cells: CellSet) -> Directions:
    """What the discriminator's output sees of the representation.

    With nothing between the two, as in the paper, the output is a scalar product: `seen` is 1, 0, 0, ..., and what
    cells show along the other 99 directions is shaped only by weights that they share with the first. `code_slope`
    below 1 changes that.
    """
    if state.config.model not in ADVERSARIAL:
        raise CellbookError(f"model {state.config.model!r} has no output after its code: take {', '.join(ADVERSARIAL)}")
    if len(cells) < 2:
        raise CellbookError(f"cells holds {len(cells)} cell: nothing varies, give at least 2")
    codes = encode(state, cells).astype(np.float64)
    judge = state.networks["discriminator"]
    leaf = torch.from_numpy(codes.astype(np.float32)).to(state.device).requires_grad_()
    condition = torch.zeros(len(leaf), judge.output.in_features - leaf.shape[1], device=state.device)
    (slopes,) = torch.autograd.grad(judge.judge(leaf, condition).sum(), leaf)
    _, size, axes = np.linalg.svd(slopes.double().cpu().numpy(), full_matrices=False)
    seen, centred = size**2 / (size**2).sum(), codes - codes.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    along = np.square(centred @ axes[0]).sum() / variances.sum()
    padded = np.pad(seen, (0, leaf.shape[1] - len(seen)))
    return Directions(padded, float(along), float(variances.sum() ** 2 / np.square(variances).sum()))


def _reader(state: State) -> nn.Module:
    """The network that is asked for codes of cells."""
    return state.networks["encoder" if "encoder" in state.networks else "discriminator"]


def _condition(state: State, compound: str | None, concentration: float | None) -> Tensor:
    """The condition of a treatment, (1, k); of no columns where the model takes none."""
    conditions = state.networks.get("condition")
    if conditions is None:
        if compound is not None or concentration is not None:
            raise CellbookError(f"compound={compound}, concentration={concentration}: the model takes no condition")
        return torch.empty(1, 0, device=state.device)
    number = torch.tensor([conditions.find(compound, concentration)], device=state.device)
    return conditions(number).detach()


def _ends(start: np.ndarray, end: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends in float64, and steps from 0 to 1 that broadcast against them."""
    start, end = (np.asarray(v, dtype=np.float64) for v in (start, end))
    if start.shape != end.shape or start.ndim < 1 or steps < 2:
        raise CellbookError(
            f"start {start.shape}, end {end.shape}, steps={steps}: give codes of one shape and at least 2 steps"
        )
    return start, end, np.linspace(0, 1, steps).reshape(-1, *[1] * start.ndim)
