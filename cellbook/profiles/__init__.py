"""From embeddings of cells to comparable profiles: tables, aggregation, scaling, whitening and batch alignment."""

from cellbook.profiles.aggregate import aggregate, to_wells
from cellbook.profiles.chain import Chain, tvn
from cellbook.profiles.coral import Coral
from cellbook.profiles.factors import FactorAnalysis
from cellbook.profiles.files import read_profiles, write_profiles
from cellbook.profiles.groups import Step
from cellbook.profiles.scaling import PlateScaler
from cellbook.profiles.table import (
    check_features,
    check_finite,
    controls_mask,
    drop_unusable,
    features,
    matrix,
    metadata,
    replace_features,
    require,
)
from cellbook.profiles.whitening import Whitening

__all__ = [
    "Chain",
    "Coral",
    "FactorAnalysis",
    "PlateScaler",
    "Step",
    "Whitening",
    "aggregate",
    "check_features",
    "check_finite",
    "controls_mask",
    "drop_unusable",
    "features",
    "matrix",
    "metadata",
    "read_profiles",
    "replace_features",
    "require",
    "to_wells",
    "tvn",
    "write_profiles",
]
