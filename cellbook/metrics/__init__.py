"""Is the biology in the profiles, and is the batch? One implementation each, with the papers' protocols by name."""

from cellbook.metrics.baselines import Baseline, chance, expected_under_ties, majority, one_feature
from cellbook.metrics.batch import BatchAccuracy, classify_batch
from cellbook.metrics.clustering import silhouette, silhouettes
from cellbook.metrics.moa import Match, match
from cellbook.metrics.neighbours import distance_matrix
from cellbook.metrics.protocols import PROTOCOLS, Measure, Protocol, describe, protocol
from cellbook.metrics.retrieval import (
    Replicating,
    activity,
    consistency,
    consistency_across_batches,
    percent_replicating,
)
from cellbook.metrics.scores import Score, as_json, prepare, score
from cellbook.metrics.thinning import thinned
from cellbook.metrics.uncertainty import accuracy, bootstrap_compounds

__all__ = [
    "PROTOCOLS",
    "Baseline",
    "BatchAccuracy",
    "Match",
    "Measure",
    "Protocol",
    "Replicating",
    "Score",
    "accuracy",
    "activity",
    "as_json",
    "bootstrap_compounds",
    "chance",
    "classify_batch",
    "consistency",
    "consistency_across_batches",
    "describe",
    "distance_matrix",
    "expected_under_ties",
    "majority",
    "match",
    "one_feature",
    "percent_replicating",
    "prepare",
    "protocol",
    "score",
    "silhouette",
    "silhouettes",
    "thinned",
]
