"""When to stop: the checkpoint chosen without each compound in turn, and all of it again on resampled cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.methods.wdn.alignment import Alignment
from cellbook.methods.wdn.evaluation import KS, VOTES, Vote, depth_of, nearest, silhouettes, votes
from cellbook.methods.wdn.units import Screen, make_screen, resample, unit_means
from cellbook.metrics import distance_matrix

Rule = Literal["knn", "silhouette"]
RULES: tuple[Rule, ...] = get_args(Rule)
BLOCK_BYTES = 256 * 2**20  # of distances held at a time


@dataclass(frozen=True)
class Stopped:
    """Checkpoints chosen without each compound, and what they score; leading axis r: resamples.

    Attributes
    ----------
    chosen : int (r, compounds), checkpoint chosen without the compound
    correct, counted : measure -> int (r, 4) and (4,), votes pooled over compounds, k = 1 to 4
    """

    chosen: np.ndarray
    correct: dict[str, np.ndarray]
    counted: dict[str, np.ndarray]


def stop(screen: Screen, distances: np.ndarray, rule: Rule = "knn", vote: Vote = "pooled") -> Stopped:
    """Choose a checkpoint without each compound in turn, and score that compound's queries there (Tabak et al. 2020).

    Without the compound, neither query nor candidate, the rule is computed at every checkpoint: "knn" the mean over
    k = 1 to 4 of NSC and of NSCB, "silhouette" that of MOAs. The best checkpoint counts, the first of equals; nothing
    is rounded before, as it is in the published code. There the compound's queries are scored with all compounds
    present. The other compounds of its MOA and the same maps have been seen: the rows of tables called "max" are
    cross-validated in this sense only.

    Parameters
    ----------
    screen : Screen
    distances : float64 (r, C, u, u), between treatment instances at every checkpoint
    rule : {"knn", "silhouette"}
    vote : {"pooled", "plain"}
    """
    if rule not in RULES:
        raise CellbookError(f"rule={rule!r} is none of {', '.join(RULES)}")
    way, compounds = VOTES.index(vote), range(len(screen.compound_names))
    found = {name: nearest(distances, eligible, depth_of(screen)) for name, eligible in screen.eligible.items()}
    criterion = np.zeros((len(compounds), *distances.shape[:2]))
    for c in compounds:
        if rule == "silhouette":
            criterion[c] = silhouettes(distances, screen.labels, screen.compounds != c)
            continue
        for name, order in found.items():
            correct, counted = votes(screen, name, order, without=c)
            right, total = correct[..., way, :, :].sum(axis=-1), counted[way].sum(axis=-1)  # (r, C, 4), (4,)
            criterion[c] += np.divide(right, total, out=np.zeros(right.shape), where=total > 0).mean(axis=-1)
    chosen = criterion.argmax(axis=-1).T  # (r, compounds)
    correct, counted = {}, {}
    for name, order in found.items():
        everywhere, counts = votes(screen, name, order)
        at = chosen[:, screen.compounds]  # (r, u), checkpoint of each query
        each = np.take_along_axis(everywhere[:, :, way], at[:, None, None, :], axis=1)[:, 0]  # (r, 4, u)
        correct[name], counted[name] = each.sum(axis=-1), counts[way].sum(axis=-1)
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
    scores, choices = [], []
    for vote in VOTES:
        for rule, found in _rules(screen, d, vote):
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
        s = silhouettes(d, screen.labels)
        course.append(_long(s[..., None], replicates, alignment.steps, "silhouette", (0,)))
        for name, eligible in screen.eligible.items():
            correct, counted = votes(screen, name, nearest(d, eligible, depth_of(screen)))
            way = VOTES.index(vote)
            value = correct[..., way, :, :].sum(axis=-1) / counted[way].sum(axis=-1)  # (r, C, 4)
            course.append(_long(value, replicates, alignment.steps, name, KS))
        for rule, found in _rules(screen, d, vote):
            best = s[:, 0] if rule == "none" else s.max(axis=1)
            scores += [(rule, int(i), "silhouette", 0, v) for i, v in zip(replicates, best, strict=True)]
            for name, right in found.correct.items():
                value = right / found.counted[name]
                scores += [
                    (rule, int(i), name, k, value[r, j]) for r, i in enumerate(replicates) for j, k in enumerate(KS)
                ]
    columns = ["rule", "replicate", "measure", "k", "value"]
    return pd.DataFrame(scores, columns=columns), pd.concat(course, ignore_index=True)


def _rules(screen: Screen, distances: np.ndarray, vote: Vote) -> Iterator[tuple[str, Stopped]]:
    """Score step 0, the rule "none", and both rules."""
    yield "none", stop(screen, distances[:, :1], vote=vote)
    for rule in RULES:
        yield rule, stop(screen, distances, rule, vote)


def _long(
    values: np.ndarray, replicates: np.ndarray, steps: np.ndarray, measure: str, ks: tuple[int, ...]
) -> pd.DataFrame:
    """One row a number: (r, C, k)."""
    index = pd.MultiIndex.from_product([replicates, steps, ks], names=["replicate", "step", "k"])
    return pd.DataFrame({"value": values.reshape(-1)}, index=index).reset_index().assign(measure=measure)
