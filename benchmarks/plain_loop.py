"""VAE+ as one writes it down: plain networks and a plain loop, which `train_loops` sets beside the step here."""

import copy
import itertools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from cellbook.cells import CellSet
from cellbook.methods import vae_plus
from cellbook.methods.vae_plus.networks import EPSILON, SLOPE, Layer
from cellbook.methods.vae_plus.objective import cross_entropy, feature_loss, gamma, kl_loss, pixel_loss
from cellbook.training import State

T = 5 * vae_plus.Config.ramp  # the step: every feature term has its full weight


class HostCells(Dataset):
    """Cells in host memory, one at a time, each channel divided by its maximum."""

    def __init__(self, cells: CellSet) -> None:
        self.images = cells.images

    def __getitem__(self, i: int) -> Tensor:
        image = self.images[i].astype(np.float32)
        return torch.from_numpy(image / np.maximum(image.max(axis=(1, 2), keepdims=True), 1))


def draw_each(cells: CellSet) -> Iterator[list[int]]:
    """Without end: rows of one cell of every treatment, then of another, for the two batches of a step."""
    groups = list(cells.table.groupby("Metadata_compound").indices.values())
    generator = np.random.default_rng(0)
    while True:
        yield [int(generator.choice(rows)) for _ in range(2) for rows in groups]


class PlainNetwork(nn.Module):
    """An encoder, decoder or discriminator as one writes it down, with the weights of one from here."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In the memory format that torch gives them.
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        self.layers = [module for module in self.network.modules() if isinstance(module, Layer)]

    def through(self, k: int, x: Tensor, first: int | None = None, padding: int = 0) -> Tensor:
        """Convolution and batch norm of a layer, by the moments of the first images or of all."""
        layer = self.layers[k]
        x, norm = F.conv2d(x, layer.conv.weight, padding=padding), layer.norm
        if first is not None:
            return torch.cat(norm(x[:first], x[first:]))
        moments = norm.running_mean, norm.running_var
        return F.batch_norm(x, *moments, norm.weight, norm.bias, training=True, eps=EPSILON)

    def features(self, x: Tensor, first: int | None = None, depth: int = 3) -> list[Tensor]:
        """Hidden layers with pooling, (B, c, 68, 68) -> (B, w, 32, 32), (B, w, 14, 14), (B, w, 5, 5)."""
        hidden = []
        for k in range(depth):
            hidden.append(x := F.leaky_relu(F.max_pool2d(self.through(k, x, first), 2), SLOPE))
        return hidden


class PlainEncoder(PlainNetwork):
    """Plain `Encoder`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See there."""
        mu, logvar = self.through(3, self.features(x)[-1]).flatten(1).chunk(2, dim=1)
        return mu, logvar


class PlainDecoder(PlainNetwork):
    """Plain `Decoder`."""

    def forward(self, z: Tensor) -> Tensor:
        """See there, of one batch."""
        x = z[:, :, None, None]
        for k in range(4):
            x = F.interpolate(x, scale_factor=2, mode="nearest") if k else x
            x = F.leaky_relu(self.through(k, x, padding=4), SLOPE)
        return F.leaky_relu(self.through(4, x), SLOPE)


class PlainDiscriminator(PlainNetwork):
    """Plain `Discriminator`."""

    def forward(self, x: Tensor, first: int | None = None) -> tuple[list[Tensor], Tensor]:
        """See there, of one batch: moments of its first images, or of all."""
        hidden = self.features(x, first)
        hidden.append(F.leaky_relu(self.through(3, hidden[-1], first), SLOPE))
        return hidden, self.through(4, hidden[-1], first).flatten()


def copies(state: State) -> dict[str, PlainNetwork]:
    """The networks once more, plain."""
    kinds = {"encoder": PlainEncoder, "decoder": PlainDecoder, "discriminator": PlainDiscriminator}
    return {name: kinds[name](network) for name, network in state.networks.items()}


class Plain:
    """The plain loop's networks and optimisers, and its step."""

    def __init__(self, state: State, passes: int = 1) -> None:
        self.networks, self.config, self.passes, config = copies(state), state.config, passes, state.config
        autoencoder = {"lr": config.adam_rate, "betas": (0.9, 0.999), "eps": 1e-7, "foreach": False}
        encoder, decoder, judge = (network.parameters() for network in self.networks.values())
        self.optimisers = [torch.optim.Adam(weights, **autoencoder) for weights in (encoder, decoder)]
        self.optimisers.append(torch.optim.SGD(judge, config.sgd_rate, config.momentum, foreach=False))

    def step(self, x: Tensor, real: Tensor) -> dict[str, float]:
        """One update from originals and reals, (N, c, 68, 68) each; the terms before it."""
        encoder, decoder, judge = self.networks.values()
        n, pixels = len(x), x[0].numel()
        mu, logvar = encoder(x)
        x_hat = decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu))
        if self.passes == 1:
            hidden, logits = judge(torch.cat([real, x_hat, x]), first=2 * n)
            features_hat, features = ([layer[part * n : (part + 1) * n] for layer in hidden] for part in (1, 2))
            judged = logits[: 2 * n]
        else:
            (_, yes), (features_hat, no), (features, _) = judge(real), judge(x_hat), judge(x)
            judged = torch.cat([yes, no])
        losses = {"pixel": pixel_loss(x, x_hat), "kl": kl_loss(mu, logvar)}
        objective = losses["pixel"] + self.config.kl_weight * losses["kl"]
        for i in self.config.terms.layers:
            losses[f"feature_{i}"] = feature_loss(features[i - 1], features_hat[i - 1], pixels)
            objective = objective + gamma(T, i, self.config.ramp) * losses[f"feature_{i}"]
        target = torch.cat([torch.ones(n, device=x.device), torch.zeros(n, device=x.device)])
        losses["discriminator"] = cross_entropy(judged, target)

        for optimiser in self.optimisers:
            optimiser.zero_grad()
        objective.backward(retain_graph=True)
        self.optimisers[2].zero_grad()
        losses["discriminator"].backward(inputs=list(judge.parameters()))
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            for p in itertools.chain.from_iterable(network.parameters() for network in self.networks.values()):
                if p.ndim == 4:
                    p.mul_(1 - self.config.decay)
        return {name: loss.item() for name, loss in losses.items()}
