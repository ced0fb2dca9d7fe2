"""Is the biology in the profiles, and is the batch? One implementation each, with the papers' protocols by name."""

from cellbook.metrics.moa import Match, match
from cellbook.metrics.neighbours import distance_matrix
from cellbook.metrics.protocols import PROTOCOLS, Measure, Protocol, describe, protocol
from cellbook.metrics.scores import Score, as_json, score
from cellbook.metrics.uncertainty import accuracy, bootstrap_compounds, wilson
from cellbook.metrics.wells import bootstrap_wells

__all__ = [
    "PROTOCOLS",
    "Match",
    "Measure",
    "Protocol",
    "Score",
    "accuracy",
    "as_json",
    "bootstrap_compounds",
    "bootstrap_wells",
    "describe",
    "distance_matrix",
    "match",
    "protocol",
    "score",
    "wilson",
]
