"""Fair autoencoder of Glastonbury, Ferlaino et al. (2018): codes of cells from which an adversary cannot read the week.

Adjusting for confounding in unsupervised latent representations of images, arXiv:1811.06498. An autoencoder learns in
three phases: A alone; B an adversary learns to read the confounder from its codes; C both play against each other.
Read `config`, `networks`, then `objective`.

Not inherited from the published code: a radius measured off the centre, coordinates that need a square image on one
GPU, hue jitter that mixes channels, gradients that run into the encoder to be thrown away, a pass over all images to
get one batch, a batch with a short end, and models chosen on augmented images of the same wells. The encoder without
an activation is kept, under its name: see `config.MODELS`.
"""

from cellbook.methods.fair_cae.codes import decode, encode, finish, reconstruct
from cellbook.methods.fair_cae.config import MODELS, PENALTIES, PRESETS, Config, before, begins_with, phase, resize
from cellbook.methods.fair_cae.objective import begin, draw, step

VERSION = 2  # rises when the results of a configuration change
