"""CytoGAN of Goldsborough et al. (2017): generative adversarial networks that draw single cells and encode them.

CytoGAN: Generative Modeling of Cell Images, bioRxiv 227645. A narrow layer before the discriminator's output is the
representation of a cell; BEGAN's bottleneck and BiGAN's encoder are others. Read `networks`, `losses`, `objective`.
"""

from cellbook.methods.cytogan.codes import (
    Directions,
    analogy,
    decode,
    directions,
    encode,
    features,
    layers,
    noise,
    reconstruct,
    redraw,
    sample,
    slerp,
    straight,
)
from cellbook.methods.cytogan.collapse import Watch, duplicates, finish
from cellbook.methods.cytogan.config import CONDITIONS, MODELS, PRESETS, Config, paper
from cellbook.methods.cytogan.objective import begin, draw, step

FOLLOWED = ("generator", "decoder", "condition")  # what images are drawn with
VERSION = 1  # rises when the results of a configuration change
