"""From embeddings of cells to comparable profiles: tables, aggregation, scaling, whitening and batch alignment."""

from cellbook.profiles.aggregate import aggregate, missing_wells, to_treatments, to_wells
from cellbook.profiles.files import read_profiles, write_profiles
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

__all__ = [
    "aggregate",
    "check_features",
    "check_finite",
    "controls_mask",
    "drop_unusable",
    "features",
    "matrix",
    "metadata",
    "missing_wells",
    "read_profiles",
    "replace_features",
    "require",
    "to_treatments",
    "to_wells",
    "write_profiles",
]
