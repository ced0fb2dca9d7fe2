"""Networks of CytoGAN, for crops whose side is a multiple of 16 pixels.

Sizes in comments are the paper's: 96 pixels, c = 3 channels, a code of 100. Convolutions keep the size of an image or
halve it; TensorFlow pads the halving ones below and to the right only, here both sides are padded alike. Images of
the GANs lie in [-1, 1], those of the autoencoders in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2


class InputNoise(nn.Module):
    """Normal noise added to images in training only; the published code adds it to cells that it encodes, too."""

    def __init__(self, sd: float) -> None:
        super().__init__()
        self.sd = sd

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> the same."""
        return x + self.sd * torch.randn_like(x) if self.training and self.sd else x


class Grid(nn.Module):
    """Rows of features as images: (N, channels * side * side) -> (N, channels, side, side), channels last."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.shape = channels, side, side

    def forward(self, x: Tensor) -> Tensor:
        """Reshape."""
        return x.unflatten(1, self.shape).contiguous(memory_format=torch.channels_last)


class Generator(nn.Module):
    """Noise and condition -> image, of DCGAN, LSGAN, WGAN and BiGAN; 4,875,267 parameters with a width of 32."""

    def __init__(self, channels: int, side: int, width: int, latent: int, condition: int = 0) -> None:
        super().__init__()
        start, units = side // 8, 8 * width * (side // 8) ** 2
        layers: list[nn.Module] = [nn.Linear(latent + condition, units), _norm(nn.BatchNorm1d, units), _leaky()]
        layers.append(Grid(8 * width, start))  # (N, 256, 12, 12)
        for times in (4, 2, 1):  # (N, 128, 24, 24), (N, 64, 48, 48), (N, 32, 96, 96)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(2 * times * width, times * width, 5, padding=2)]
            layers += [_norm(nn.BatchNorm2d, times * width), _leaky()]
        layers.append(nn.Conv2d(width, channels, 5, padding=2))
        self.layers = glorot(nn.Sequential(*layers))

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """(N, 100), (N, k) -> (N, c, 96, 96) float32 in [-1, 1]."""
        return torch.tanh(self.layers(torch.cat([z, condition], 1)).float())


class Discriminator(nn.Module):
    """Image and condition -> one number, through the representation; 4,764,681 parameters with a width of 32."""

    def __init__(
        self,
        channels: int,
        side: int,
        width: int,
        latent: int,
        condition: int = 0,
        noise: float = 0.1,
        slope: float = 1,
    ) -> None:
        super().__init__()
        self.noise, self.slope = InputNoise(noise), slope
        self.convolutions = glorot(strided(channels, [width, 2 * width, 4 * width, 8 * width], lambda _: [_leaky()]))
        self.code = glorot(nn.Linear(8 * width * (side // 8) ** 2, latent))
        self.output = glorot(nn.Linear(latent + condition, 1))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """What the four convolutions see in images: (N, 32, 96, 96), (N, 64, 48, 48), ..., (N, 256, 12, 12)."""
        return each(self.convolutions, self.noise(x))

    def represent(self, x: Tensor) -> Tensor:
        """Representation of images, (N, 100): the paper's code of a cell."""
        return self.code(self.hidden(x)[-1].flatten(1))

    def judge(self, code: Tensor, condition: Tensor) -> Tensor:
        """Output for representations and conditions, (N, 100), (N, k) -> (N,): a logit but for LSGAN and WGAN.

        A condition that comes in here, as in the paper, shifts the output by the same whatever the image: the
        discriminator cannot tell whether image and condition belong together. BEGAN's can.
        """
        bent = F.leaky_relu(code, self.slope) if self.slope != 1 else code
        return self.output(torch.cat([bent, condition], 1)).flatten().float()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, c, 96, 96), (N, k) -> (N,) float32."""
        return self.judge(self.represent(x), condition)


class BeganDecoder(nn.Module):
    """Code and condition -> image: BEGAN's generator, and the second half of its discriminator."""

    def __init__(self, channels: int, side: int, width: int, latent: int, condition: int = 0, *, made: bool) -> None:
        super().__init__()
        wide, start = 2 * width, side // 8
        layers: list[nn.Module] = [nn.Linear(latent + condition, wide * start**2)]
        layers += [*([nn.ELU()] if made else []), Grid(wide, start)]  # (N, 128, 12, 12)
        for scale in (1, 2, 2, 2):  # 12, 24, 48, 96 pixels
            layers += [nn.Upsample(scale_factor=scale)] if scale > 1 else []
            layers += _same(wide) + _same(wide)
        layers.append(nn.Conv2d(wide, channels, 3, padding=1))
        self.layers, self.made = glorot(nn.Sequential(*layers)), made

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """(N, 100), (N, k) -> (N, c, 96, 96) float32; in [-1, 1] where images are made, else linear."""
        x = self.layers(torch.cat([z, condition], 1)).float()
        return torch.tanh(x) if self.made else x


class BeganDiscriminator(nn.Module):
    """Image -> image: an autoencoder that is told to denoise; its buffer k balances it against the generator."""

    def __init__(
        self, channels: int, side: int, width: int, latent: int, condition: int = 0, noise: float = 0.1
    ) -> None:
        super().__init__()
        self.noise = InputNoise(noise)
        blocks, filters = [], [width, 2 * width, 4 * width, 6 * width]  # 64, 128, 256, 384
        for before, now in pairwise([channels, *filters]):
            halved = [nn.Conv2d(before, now, 3, stride=2, padding=1), nn.ELU()]
            blocks.append(nn.Sequential(*halved, *(_same(now) + _same(now))))
        self.convolutions = glorot(nn.Sequential(*blocks))
        self.code = glorot(nn.Linear(filters[-1] * (side // 16) ** 2, latent))
        self.decoder = BeganDecoder(channels, side, width, latent, condition, made=False)
        self.register_buffer("k", torch.tensor(1e-8))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """What the four blocks see in images: (N, 64, 48, 48), ..., (N, 384, 6, 6)."""
        return each(self.convolutions, self.noise(x))

    def represent(self, x: Tensor) -> Tensor:
        """Representation of images, (N, 100): the bottleneck."""
        return self.code(self.hidden(x)[-1].flatten(1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, c, 96, 96), (N, k) -> (N, c, 96, 96) float32."""
        return self.decoder(self.represent(x), condition)


class BiganEncoder(nn.Module):
    """Image -> its noise, (N, 100)."""

    def __init__(self, channels: int, side: int, width: int, latent: int, noise: float = 0.1) -> None:
        super().__init__()
        self.noise = InputNoise(noise)
        filters = [8 * width, 4 * width, 2 * width, width]  # 96, 48, 24, 12 pixels
        self.convolutions = glorot(strided(channels, filters, lambda n: [_norm(nn.BatchNorm2d, n), _leaky()]))
        self.code = glorot(nn.Linear(width * (side // 8) ** 2, latent))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """What the four convolutions see in images: (N, 128, 96, 96), ..., (N, 16, 12, 12)."""
        return each(self.convolutions, self.noise(x))

    def represent(self, x: Tensor) -> Tensor:
        """(N, c, 96, 96) -> (N, 100)."""
        return self.code(self.hidden(x)[-1].flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, 96, 96) -> (N, 100) float32."""
        return self.represent(x).float()


class BiganDiscriminator(nn.Module):
    """Image and code -> logit of being a real image with its code rather than a made one with its noise."""

    def __init__(
        self, channels: int, side: int, width: int, latent: int, noise: float = 0.1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.noise = InputNoise(noise)
        filters = [8 * width, 4 * width, 2 * width, width]
        self.convolutions = glorot(strided(channels, filters, lambda _: [_leaky(), nn.Dropout(dropout)]))
        sizes = [width * (side // 8) ** 2 + latent, 64 * width, 64 * width, 16 * width]  # 1024, 1024, 256
        layers: list[nn.Module] = []
        for before, now in pairwise(sizes):
            layers += [nn.Linear(before, now), _leaky(), nn.Dropout(dropout)]
        self.dense = glorot(nn.Sequential(*layers, nn.Linear(sizes[-1], 1)))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N, c, 96, 96), (N, 100) -> (N,) float32."""
        seen = self.convolutions(self.noise(x)).flatten(1)
        return self.dense(torch.cat([seen, code], 1)).flatten().float()


class Encoder(nn.Module):
    """Image in [0, 1] -> code of the autoencoder, or mean and log variance of the VAE's."""

    def __init__(self, channels: int, side: int, filters: Sequence[int], latent: int, *, variational: bool) -> None:
        super().__init__()
        blocks = []
        for before, now in pairwise([channels, *filters]):
            blocks.append(nn.Sequential(nn.Conv2d(before, now, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
        self.latent, self.convolutions = latent, glorot(nn.Sequential(*blocks))
        units = filters[-1] * (side >> len(filters)) ** 2
        self.code = glorot(nn.Linear(units, 2 * latent if variational else latent))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """What the convolutions see in images, pooled: (N, 128, 48, 48), (N, 64, 24, 24), (N, 32, 12, 12)."""
        return each(self.convolutions, x)

    def represent(self, x: Tensor) -> Tensor:
        """Representation of images: the mean of the code. The published code returns a code drawn around it."""
        return self(x)[:, : self.latent]

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, 96, 96) -> (N, 512) of the VAE, (N, 32) of the autoencoder, float32."""
        return self.code(self.hidden(x)[-1].flatten(1)).float()


class Decoder(nn.Module):
    """Code -> image in [0, 1]: the encoder backwards."""

    def __init__(self, channels: int, side: int, filters: Sequence[int], latent: int) -> None:
        super().__init__()
        start = side >> len(filters)
        layers: list[nn.Module] = [nn.Linear(latent, filters[-1] * start**2), nn.ReLU(), Grid(filters[-1], start)]
        back = [*reversed(filters)]
        for before, now in pairwise(back):  # 64, 128
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, now, 3, padding=1), nn.ReLU()]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(back[-1], channels, 3, padding=1), nn.Sigmoid()]
        self.layers = glorot(nn.Sequential(*layers))

    def forward(self, z: Tensor) -> Tensor:
        """(N, d) -> (N, c, 96, 96) float32."""
        return self.layers(z).float()


def strided(channels: int, filters: Sequence[int], after: Callable[[int], list[nn.Module]]) -> nn.Sequential:
    """Convolutions 5 x 5, the first of all pixels and each other of half the side, with what follows each."""
    blocks = []
    for k, (before, now) in enumerate(pairwise([channels, *filters])):
        convolution = nn.Conv2d(before, now, 5, stride=1 if k == 0 else 2, padding=2)
        blocks.append(nn.Sequential(convolution, *after(now)))
    return nn.Sequential(*blocks)


def each(blocks: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What comes out of every block in turn."""
    found = []
    for block in blocks:
        x = block(x)
        found.append(x)
    return found


def glorot(network: nn.Module) -> nn.Module:
    """Draw weights as Keras does by default: uniformly within Glorot's bound, and no biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def _same(filters: int) -> list[nn.Module]:
    return [nn.Conv2d(filters, filters, 3, padding=1), nn.ELU()]


def _leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


def _norm(kind: type[nn.Module], features: int) -> nn.Module:
    return kind(features, eps=1e-3, momentum=0.1)  # Keras counts momentum the other way: 0.9
