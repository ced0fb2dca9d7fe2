"""WDN of Tabak et al. (2020): maps, one a batch, that make the controls of all batches alike in Wasserstein distance.

Correcting nuisance variation using Wasserstein distance, PeerJ 8:e8594. The maps are affine and start at the identity;
small networks, the critics, estimate the distance between every two batches; early stopping keeps the maps from erasing
biology. Read `config`, `critics`, `fitting`; then `evaluation` and `stopping`.

Not inherited from the published code: maps that differ between training and evaluation, a penalty on the slope of a
whole minibatch, alternation as printed (it diverges). `Config` has these as `bug_bias`, `bug_norm` and the step counts,
for the study of what they do. Left out: skipping a map step when the critics see no distance.
"""

from cellbook.methods.wdn.alignment import Alignment, Level, unmoved
from cellbook.methods.wdn.config import PRESETS, Config
from cellbook.methods.wdn.evaluation import evaluate
from cellbook.methods.wdn.fitting import fit
from cellbook.methods.wdn.instances import hold_out_plates, make_screen, unit_means
from cellbook.methods.wdn.run import VERSION, load, run
from cellbook.methods.wdn.stopping import bootstrap, stopping
