"""Table 1 and figure 6 of the paper on a simulated genetic screen: 26 variants of ten genes, a well of each a plate.

A network is trained on one variant of each gene, and the wells of all 26 are matched, on all plates: is the nearest
other well of the same variant (a replicate), is it of the same gene? What a profile is, the distance, and what is left
out of the candidates are not printed. Here they are a well, the cosine distance, and the well itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook import metrics, profiles
from cellbook.cells import CellSet
from cellbook.features.transferred import installed
from cellbook.metrics.neighbours import candidates
from cellbook.pages.caicedo2018.models import BASELINE, MIXUP, RECURRENT, TRAINED, of_genes
from cellbook.profiles.aggregate import WELL
from cellbook.runs import Run, obtain, save_table
from cellbook.study import profile
from cellbook.study.course import MEANS
from cellbook.study.encoding import CLASSICAL, IMAGENET, UNTRAINED, encode, standardise
from cellbook.study.measured import Matched
from cellbook.study.processes import one_thread
from cellbook.study.projections import project
from cellbook.study.rows import Draws, Votes, average, by_repeat, counts, difference, row
from cellbook.study.transferred import well_profiles
from cellbook.training.codes import kept_rows

VERSION = 1
PROTOCOL, PAIRED = "variants", "variants, paired"
REPLICATE, GENE = "replicate accuracy", "gene accuracy"
# The first two are the paper's; then without candidates of the same variant, and without those of the same batch.
MEASURES = (
    metrics.Measure(REPLICATE, "Metadata_compound", ()),
    metrics.Measure(GENE, "Metadata_moa", ()),
    metrics.Measure(f"{GENE}, other variants", "Metadata_moa", ("Metadata_compound",)),
    metrics.Measure(f"{GENE}, other batches", "Metadata_moa", ("Metadata_batch",)),
)
NETWORKS = tuple(map(of_genes, (BASELINE, RECURRENT, MIXUP)))
OTHERS = tuple(map(of_genes, (CLASSICAL, IMAGENET, UNTRAINED)))
VARIANTS = (*OTHERS, *NETWORKS)
PERPLEXITY, COMPONENTS = 30, 50  # of the maps of cells


def votes(wells: pd.DataFrame) -> pd.DataFrame:
    """Whether each treated well is matched, by summary and measure; mean profiles, plain and whitened by DMSO wells."""
    varying = profiles.drop_unusable(wells)[0]
    return vote(dict(zip(MEANS, (varying, profile.whiten(varying)[0]), strict=True)))


def vote(summaries: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Whether each treated well is matched, one row a summary, measure and well, in the order of plates and wells.

    Columns summary, measure, allele, gene, correct, counted, and chance: the share of its candidates that is right.
    """
    found = []
    for summary, wells in summaries.items():
        treated = wells[~profiles.controls_mask(wells)].sort_values(WELL, ignore_index=True)
        distances = metrics.distance_matrix(profiles.matrix(treated))
        for measure in MEASURES:
            queries = metrics.match(treated, distances=distances, **measure.arguments()).per_query
            label, allowed = treated[measure.label].to_numpy(), candidates(treated, measure.exclude)
            right = (allowed & (label[:, None] == label)).sum(axis=1)
            rows = {"summary": summary, "measure": measure.name}
            rows |= {"allele": treated["Metadata_compound"], "gene": treated["Metadata_moa"]}
            rows |= {"correct": queries["correct"], "counted": queries["counted"]}
            found.append(pd.DataFrame(rows | {"chance": right / np.maximum(allowed.sum(axis=1), 1)}))
    return pd.concat(found, ignore_index=True)


def held_out(table: pd.DataFrame, replicates: Iterable[int]) -> np.ndarray:
    """Which cells are of the ten variants and of replicates that validate, (cells,) bool: those of figure 6."""
    return (table["Metadata_compound"].isin(TRAINED) & table["Metadata_replicate"].isin(list(replicates))).to_numpy()


def held_out_cells(codes: pd.DataFrame, replicates: Iterable[int]) -> pd.DataFrame:
    """Principal components of held-out cells, of their features in deviations of the DMSO cells, at most `COMPONENTS`.

    That is what a map is drawn of, which a machine that trains need not be able to.
    """
    from sklearn.decomposition import PCA

    scaled = standardise(codes.reset_index(drop=True))
    some = scaled[held_out(scaled, replicates)].reset_index(drop=True)
    x = profiles.matrix(some)
    x = PCA(min(COMPONENTS, *x.shape), svd_solver="full").fit_transform(x).astype(np.float32)
    known = some[["Metadata_compound", "Metadata_concentration", "Metadata_moa", "Metadata_batch"]]
    return pd.concat([known, pd.DataFrame(x, columns=[f"component_{i}" for i in range(x.shape[1])])], axis=1)


def cell_maps(cells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Held-out cells in the plane, by t-SNE: variant, x, y, allele, gene; in the order of `VARIANTS`."""
    found = []
    for name in (name for name in VARIANTS if len(cells) and name in set(cells["variant"])):
        part = cells[cells["variant"] == name].drop(columns=["variant", "repeat"]).dropna(axis=1)
        # No more neighbours than a third of the cells, beyond which the method is not defined.
        points = project(part.reset_index(drop=True), seed, min(PERPLEXITY, (len(part) - 1) / 3))
        points = points.query("method == 't-SNE'").rename(columns={"compound": "allele", "moa": "gene"})
        found.append(points[["x", "y", "allele", "gene"]].assign(variant=name))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"variant": []})


def transferred(cells: CellSet, replicates: tuple[int, ...], seed: int, store: str | Path, device: str) -> list[Run]:
    """The run of ImageNet features on the genetic screen, made if it is not there; none where they are not installed.

    Its map of cells is of the same cells as that of every other encoder, so far as these are among `cells`.
    """
    if not installed():
        return []

    def make(folder: Path) -> None:
        save_table(vote(well_profiles(cells, seed, device)), folder / "genes.parquet")
        kept = kept_rows(cells.table)
        control = profiles.controls_mask(cells.table)
        shown = kept[(control | held_out(cells.table, replicates))[kept]]
        codes = encode(IMAGENET, cells.select(shown), seed, device=device)
        save_table(held_out_cells(codes, replicates), folder / "cells.parquet")

    config = {"profile": IMAGENET, "screen": "simulated", "validation": list(replicates), "seed": seed}
    with one_thread():
        return [obtain(store, "baseline-genes", VERSION, config, cells.fingerprint, make, device=device)]


# --- numbers --------------------------------------------------------------------------------------------------------


def matched(table: pd.DataFrame) -> dict[tuple[str, str, str], list[Votes]]:
    """Votes by variant, summary and measure, one set a training, grouped by gene."""
    found = by_repeat(table, "variant", "summary", "measure") if len(table) else {}
    return {
        key: [Votes.of(part["correct"], part["gene"], part["counted"]) for part in repeats]
        for key, repeats in found.items()
    }


def as_matched(table: pd.DataFrame) -> Matched:
    """The same as pages have it of distances, which here are cosine distances."""
    return {((variant, summary, "cosine"), measure): of for (variant, summary, measure), of in matched(table).items()}


def lines(table: pd.DataFrame, draws: Draws) -> Iterator[dict[str, Any]]:
    """Accuracies with intervals over genes, what candidates at random would give, and paired differences."""
    found = matched(table)
    for (variant, summary, measure), repeats in found.items():
        about = {"variant": variant, "summary": summary}
        yield average(f"{variant}, {summary}", PROTOCOL, measure, repeats, draws, **counts(repeats), **about)
    for measure in (one.name for one in MEASURES if len(table)):
        chance = table.loc[table["measure"] == measure, "chance"].astype(np.float64)
        yield row("candidates at random", PROTOCOL, measure, chance.mean())
    trained = [name for name in NETWORKS if (name, MEANS[0], GENE) in found]
    pairs = [*product(trained, OTHERS), *((name, NETWORKS[0]) for name in trained if name != NETWORKS[0])]
    pairs += [(NETWORKS[2], NETWORKS[1])]
    for (left, right), summary, one in product(pairs, MEANS, MEASURES):
        sides = [found.get((name, summary, one.name), []) for name in (left, right)]
        if all(sides):
            yield difference(f"{left} - {right}, {summary}", PAIRED, one.name, *sides, draws, summary=summary)


def is_genetic(variant: str) -> bool:
    """Whether a name is of something on the genetic screen, see `of_genes`."""
    return variant.endswith(of_genes(""))
