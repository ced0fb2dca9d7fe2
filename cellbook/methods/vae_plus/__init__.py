"""VAE+ of Lafarge et al. (2019): an autoencoder that also matches what a discriminator sees in its reconstructions.

Capturing single-cell phenotypic variation via unsupervised representation learning, PMLR 102:315-325. AE, VAE and VAE+
share encoder and decoder and differ in their objective: see `config.MODELS`. Read `networks`, then `objective`.
"""

from cellbook.methods.vae_plus.codes import decode, encode, nearest_to_mean, reconstruct, sample_prior, walk
from cellbook.methods.vae_plus.config import MODELS, PRESETS, Config, resize
from cellbook.methods.vae_plus.objective import begin, draw, step

VERSION = 2  # rises when the results of a configuration change
