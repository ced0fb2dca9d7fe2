"""When to stop: the checkpoint chosen without each compound in turn, and all of it again on resampled cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.evaluation import (
    KS,
    VOTES,
    Neighbours,
    Sums,
    Vote,
    nearest,
    silhouettes,
    sum_distances,
    votes,
)
from cellbook.methods.wdn.instances import Screen, make_screen, resample, unit_means
from cellbook.metrics import distance_matrix

Rule = Literal["knn", "silhouette"]
RULES: tuple[Rule, ...] = get_args(Rule)
BLOCK_BYTES = 32 * 2**20  # of distances held at a time


@dataclass(frozen=True)
class Stopped:
    """Checkpoints chosen without each compound, and what they score; leading axis r: resamples."""

    chosen: np.ndarray  # int (r, compounds), checkpoint chosen without the compound
    correct: dict[str, np.ndarray]  # measure -> int (r, 4), votes pooled over compounds, k = 1 to 4
    counted: dict[str, np.ndarray]  # measure -> int (4,)


def stop(
    screen: Screen, found: dict[str, Neighbours], sums: Sums, rule: Rule = "knn", vote: Vote = "pooled"
) -> Stopped:
    """Choose a checkpoint without each compound in turn, and score that compound's queries there (Tabak et al. 2020).

    Without the compound, neither query nor candidate, the rule is computed at every checkpoint: "knn" the mean over
    k = 1 to 4 of NSC and of NSCB, "silhouette" that of MOAs. The best checkpoint counts, the first of equals; nothing
    is rounded before, as it is in the published code. There the compound's queries are scored with all compounds
    present. The other compounds of its MOA and the same maps have been seen: the rows of tables called "max" are
    cross-validated in this sense only.

    Parameters
    ----------
    screen : Screen
    found, sums : neighbours and sums of distances at every checkpoint, leading axes (r, C)
    rule : {"knn", "silhouette"}
    vote : {"pooled", "plain"}
    """
    if rule not in RULES:
        raise CellbookError(f"rule={rule!r} is none of {', '.join(RULES)}")
    compounds = range(len(screen.compound_names))
    criterion = np.zeros((len(compounds), *sums[0].shape[1:3]))
    for c in compounds:
        if rule == "silhouette":
            criterion[c] = silhouettes(screen, sums, c)
            continue
        for neighbours in found.values():
            correct, counted = votes(screen, neighbours, vote, c)
            right, total = correct.sum(axis=-1), counted.sum(axis=-1)  # (r, C, 4), (4,)
            criterion[c] += np.divide(right, total, out=np.zeros(right.shape), where=total > 0).mean(axis=-1)
    # Equal sums may differ in their last digit, which must not decide between checkpoints.
    chosen = criterion.round(12).argmax(axis=-1).T  # (r, compounds)
    return _score(screen, found, chosen, vote)


def _score(screen: Screen, found: dict[str, Neighbours], chosen: np.ndarray, vote: Vote) -> Stopped:
    """Score every query at the checkpoint chosen for its compound (r, compounds)."""
    correct, counted = {}, {}
    at = chosen[:, screen.compounds]  # (r, u)
    for name, neighbours in found.items():
        everywhere, counts = votes(screen, neighbours, vote)  # (r, C, 4, u), (4, u)
        each = np.take_along_axis(everywhere, at[:, None, None, :], axis=1)[:, 0]  # (r, 4, u)
        correct[name], counted[name] = each.sum(axis=-1), counts.sum(axis=-1)
    return Stopped(chosen, correct, counted)


def stopping(alignment: Alignment, profiles: pd.DataFrame, controls: str = "DMSO") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the stopping rules on all data.

    Returns
    -------
    scores : DataFrame
        rule, vote, measure, k, value, correct, scored; the rule "none" is step 0.
    choices : DataFrame
        rule, vote, compound, step: the map step chosen without the compound.
    """
    screen = make_screen(alignment, profiles, controls)
    d = distance_matrix(unit_means(screen, range(len(alignment.steps))))
    neighbours, sums = nearest(screen, d), sum_distances(screen, d)
    scores, choices = [], []
    for vote in VOTES:
        for rule, found in _rules(screen, neighbours, sums, vote):
            for name, correct in found.correct.items():
                for j, k in enumerate(KS):
                    r, t = int(correct[0, j]), int(found.counted[name][j])
                    scores.append((rule, vote, name, k, r / t if t else np.nan, r, t))
            steps = alignment.steps[found.chosen[0]]
            choices += [(rule, vote, c, int(s)) for c, s in zip(screen.compound_names, steps, strict=True)]
    return (
        pd.DataFrame(scores, columns=["rule", "vote", "measure", "k", "value", "correct", "scored"]),
        pd.DataFrame(choices, columns=["rule", "vote", "compound", "step"]),
    )


def bootstrap(
    alignment: Alignment,
    profiles: pd.DataFrame,
    n: int = 100,
    seed: int = 0,
    *,
    vote: Vote = "pooled",
    controls: str = "DMSO",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score resampled cells with the stopping step chosen anew in every resample (Tabak et al. 2020).

    Cells are drawn with replacement within their well; where rows are wells, wells within their treatment instance,
    which is the wider of the two. The maps are not fitted again. Equal seeds draw equal rows, so that alignments can be
    compared resample by resample; `unmoved` makes one of any other correction.

    Returns
    -------
    scores : DataFrame
        rule ("none" is step 0), replicate, measure (NSC, NSCB, silhouette), k, value. The standard deviation over
        replicates is the paper's standard error. The silhouette of a rule is the highest of all checkpoints, as the
        paper reports it, without any hold-out.
    course : DataFrame
        step, replicate, measure, k, value: the same at every checkpoint.
    """
    screen = make_screen(alignment, profiles, controls)
    counts = resample(screen, n, seed)
    checkpoints = range(len(alignment.steps))
    u = len(screen.table)
    block = max(1, BLOCK_BYTES // (8 * len(checkpoints) * u * max(u, screen.x.shape[1])))
    scores, course = [], []
    for start in range(0, n, block):
        part = counts[start : start + block]
        d = distance_matrix(unit_means(screen, checkpoints, part))  # (r, C, u, u)
        replicates = np.arange(start, start + len(part))
        neighbours, sums = nearest(screen, d), sum_distances(screen, d)
        s = silhouettes(screen, sums)
        course.append(_long(s[..., None], replicates, alignment.steps, "silhouette", (0,)))
        for name, near in neighbours.items():
            correct, counted = votes(screen, near, vote)
            share = _share(correct.sum(axis=-1), counted.sum(axis=-1))
            course.append(_long(share, replicates, alignment.steps, name, KS))
        for rule, found in _rules(screen, neighbours, sums, vote):
            best = s[:, 0] if rule == "none" else s.max(axis=1)
            scores += [(rule, int(i), "silhouette", 0, v) for i, v in zip(replicates, best, strict=True)]
            for name, right in found.correct.items():
                value = _share(right, found.counted[name])
                scores += [
                    (rule, int(i), name, k, value[r, j]) for r, i in enumerate(replicates) for j, k in enumerate(KS)
                ]
    columns = ["rule", "replicate", "measure", "k", "value"]
    return pd.DataFrame(scores, columns=columns), pd.concat(course, ignore_index=True)


def _rules(screen: Screen, found: dict[str, Neighbours], sums: Sums, vote: Vote) -> Iterator[tuple[str, Stopped]]:
    """Score step 0, the rule "none", and both rules."""
    start = np.zeros((sums[0].shape[1], len(screen.compound_names)), dtype=np.int64)
    yield "none", _score(screen, found, start, vote)
    for rule in RULES:
        yield rule, stop(screen, found, sums, rule, vote)


def _share(right: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Right votes of those counted; NaN where nothing is."""
    return np.divide(right, counted, out=np.full(right.shape, np.nan), where=counted > 0)


def _long(
    values: np.ndarray, replicates: np.ndarray, steps: np.ndarray, measure: str, ks: tuple[int, ...]
) -> pd.DataFrame:
    """One row a number: (r, C, k)."""
    index = pd.MultiIndex.from_product([replicates, steps, ks], names=["replicate", "step", "k"])
    return pd.DataFrame({"value": values.reshape(-1)}, index=index).reset_index().assign(measure=measure)
