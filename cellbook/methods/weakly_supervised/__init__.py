"""Weakly supervised features of Caicedo et al. (2018): a network learns which treatment a cell got, then is cut open.

Weakly Supervised Learning of Single-Cell Feature Embeddings, CVPR 2018, 9309-9318. The classifier is thrown away; the
features are those of a layer in the middle. Two regularisers are compared: a GRU that sees several cells of a treatment
at once, and mixup of two cells. Read `networks`, then `sampling`, then `objective`.
"""

from cellbook.methods.weakly_supervised.codes import encode, finish, layers, probabilities, validate
from cellbook.methods.weakly_supervised.config import LAYERS, PRESETS, Config
from cellbook.methods.weakly_supervised.objective import begin, draw, step
from cellbook.methods.weakly_supervised.split import split

VERSION = 1  # rises when the results of a configuration change
