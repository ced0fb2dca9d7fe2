"""Is the biology in the profiles, and is the batch? One implementation each, with the papers' protocols by name."""

from cellbook.metrics.baselines import chance, expected_under_ties, majority, one_feature
from cellbook.metrics.batch import BatchAccuracy, classify_batch
from cellbook.metrics.clustering import silhouettes
from cellbook.metrics.moa import Match, match
from cellbook.metrics.neighbours import distance_matrix, tally
from cellbook.metrics.protocols import PROTOCOLS, Measure, Protocol, describe, protocol
from cellbook.metrics.retrieval import (
    activity,
    consistency,
    consistency_across_batches,
    percent_replicating,
    precision_of_treatments,
    random_precision,
)
from cellbook.metrics.scores import Score, as_json, measure_design, score
from cellbook.metrics.thinning import thinned
from cellbook.metrics.uncertainty import accuracy, bootstrap_compounds
from cellbook.metrics.units import prepare
