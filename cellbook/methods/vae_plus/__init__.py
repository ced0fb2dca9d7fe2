"""VAE+ of Lafarge et al. (2019): an autoencoder that also matches what a discriminator sees in its reconstructions.

Capturing single-cell phenotypic variation via unsupervised representation learning, PMLR 102:315-325. AE, VAE and VAE+
share encoder and decoder and differ in their objective: see `config.MODELS`. Read `networks`, then `objective`.
"""

from cellbook.methods.vae_plus.codes import (
    Walk,
    decode,
    encode,
    finish,
    nearest_to_mean,
    reconstruct,
    sample_prior,
    walk,
)
from cellbook.methods.vae_plus.config import MODELS, PRESETS, Config, Terms
from cellbook.methods.vae_plus.networks import Decoder, Discriminator, Encoder
from cellbook.methods.vae_plus.objective import (
    begin,
    cross_entropy,
    draw,
    feature_loss,
    gamma,
    kl_loss,
    pixel_loss,
    step,
)

VERSION = 1  # rises when the results of a configuration change

__all__ = [
    "MODELS",
    "PRESETS",
    "VERSION",
    "Config",
    "Decoder",
    "Discriminator",
    "Encoder",
    "Terms",
    "Walk",
    "begin",
    "cross_entropy",
    "decode",
    "draw",
    "encode",
    "feature_loss",
    "finish",
    "gamma",
    "kl_loss",
    "nearest_to_mean",
    "pixel_loss",
    "reconstruct",
    "sample_prior",
    "step",
    "walk",
]
