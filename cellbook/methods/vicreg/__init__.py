"""A self-supervised baseline of the book's own: VICReg, whose two views are two cells of one treatment.

The loss is that of Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning, ICLR 2022, arXiv 2105.04906. What follows is ours, and none of it is their experiment:

- A positive pair is not one image twice but two cells of the same treatment, from other weeks where the treatment has
  several, else from other plates, else from other wells. The treatment is the only label, as in WS-DINO (Cross-Zamirski
  et al. 2022, arXiv 2209.07819); that views from elsewhere teach a network to disregard where a cell lay is the idea of
  Haslum et al. 2022 (arXiv 2212.11595) and of CWA-MSN (Huang et al. 2025, arXiv 2509.19896).
- The trunk is the ResNet-18 of `weakly_supervised`, a quarter as wide, as a core of a CPU can train it in minutes.

Of the well-understood losses it is the one with fewest parts. It has no negative pairs, of which InfoNCE needs many,
and which would push cells of one mechanism apart because their treatments differ; no stopped gradient and no predictor,
on which SimSiam rests; no second network that follows the first, as BYOL and DINO have. Batches may be small. And a
collapse is not hidden: the deviation of the embeddings is in the loss, and stands in the history of every training.

Read `config`, then `pairs`, then `objective`.
"""

from cellbook.methods.vicreg.config import PRESETS, Config
from cellbook.methods.vicreg.objective import begin, draw, encode, step

VERSION = 1  # rises when the results of a configuration change
