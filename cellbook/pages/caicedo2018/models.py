"""The names of what the page trains: the paper's three models, other strengths of them, and ours."""

from __future__ import annotations

from typing import Any

from cellbook.methods import weakly_supervised
from cellbook.screens.simulator.design import variants

LABELS = {"baseline": "baseline CNN", "recurrent": "recurrent", "mixup": "mixup"}  # as in the paper's table
BASELINE, RECURRENT, MIXUP = LABELS.values()
FIELDS = {"recurrent": "set_size", "mixup": "alpha"}  # how strongly a model is regularised
SIGNS = {"recurrent": "T", "mixup": "alpha"}  # the same in the paper
PAPERS = {model: getattr(weakly_supervised.Config, name) for model, name in FIELDS.items()}
# From weak to strong. T is the paper's; of alpha it gives 0.2 alone.
STRENGTHS: dict[str, tuple[float, ...]] = {"recurrent": (3, 5, 8), "mixup": (0.05, 0.1, 0.2, 0.5, 1.0)}


def strength(model: str, value: float) -> str:
    """Name of a regularised model with a strength; with that of the paper's table its label alone."""
    return LABELS[model] + ("" if value == PAPERS[model] else f", {SIGNS[model]} {value:g}")


SWEPT = {strength(model, value): (model, value) for model, values in STRENGTHS.items() for value in values}
AS_DESCRIBED = {"recurrent": "recurrent, sets as described", "mixup": "mixup, pairs as described"}
POOLED, ATTENDED = "mean of sets", "sets pooled by attention"
SHUFFLED, PRETRAINED = "treatments shuffled within weeks", "pretrained on photographs"
# Every model by its name, as what it changes of the baseline. The last four are not in the paper.
MODELS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    **{name: {"model": model, FIELDS[model]: value} for name, (model, value) in SWEPT.items()},
    **{name: {"model": model, "partners": "apart"} for model, name in AS_DESCRIBED.items()},
    POOLED: {"model": "pooled"},
    ATTENDED: {"model": "attended"},
    SHUFFLED: {"labels": "shuffled"},
    # Without batch norm, which is folded away, the rate of the others has turned all of its codes into one.
    PRETRAINED: {"trunk": "efficientnet_lite0", "scale": "signed", "layer": "pool", "rate": 1e-4},
}
# What each of the page's own models is held against, whatever the numbers say.
AGAINST = {
    AS_DESCRIBED["recurrent"]: RECURRENT,
    AS_DESCRIBED["mixup"]: MIXUP,
    POOLED: RECURRENT,
    ATTENDED: POOLED,
    SHUFFLED: BASELINE,
}

GENETIC = "genetic"  # the simulated screen of variants of genes, as trainings call it
TRAINED = tuple(variants().query("split == 'train'")["variant"])  # the ten variants that a network there tells apart


def without(week: str) -> str:
    """Name of the baseline that sees no cell of a week."""
    return f"without {week}"


def of_genes(name: str) -> str:
    """Name of a model, or of plain features, on the genetic screen."""
    return f"{name}, genes"
