"""What decides each claim of the page; a claim needs at least three trainings of every model that it compares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.lafarge2019.config import PAPER_MODELS
from cellbook.study.rows import pick

MEASURES = ("NSC", "NSCB")
MISFIT = "misfit of sharpness"
LEAST = 3  # trainings behind a verdict
SMALL_FALL = 0.01  # a fall of the similarity that nobody sees in a figure
MARGIN = 0.05  # of accuracy, about five treatments: less than this is "as accurate"; ours, as the paper has no test


def lines_of(numbers: pd.DataFrame, *wanted: tuple[str, str, str]) -> list[pd.Series]:
    """The rows of the numbers with these (setting, protocol, measure)."""
    found = [pick(numbers, setting=a, protocol=b, measure=c) for a, b, c in wanted]
    return [part.iloc[0] for part in found if len(part)]


def not_judged(lines: list[pd.Series], needed: int) -> Verdict | None:
    """Why no verdict is given, if none is."""
    if len(lines) < needed:
        return Verdict(INCOMPARABLE, "not judged: the models that it compares were not trained")
    unknown = [line["measure"] for line in lines if not np.isfinite(line[["value", "low", "high"]].astype(float)).all()]
    if unknown:
        return Verdict(
            INCOMPARABLE, f"not judged: {', '.join(dict.fromkeys(unknown))} cannot be measured on this screen"
        )
    trainings = int(min(line["trainings"] for line in lines))
    if trainings < LEAST:
        return Verdict(INCOMPARABLE, f"not judged: {trainings} training(s) of a model, {LEAST} are needed")
    return None


def points(line: pd.Series) -> str:
    """A difference of accuracies in points, with its interval."""
    return (
        f"{line['setting']}, {line['measure']}: {100 * line['value']:+.1f} points "
        f"[{100 * line['low']:+.1f}, {100 * line['high']:+.1f}], spread over trainings {100 * line['sd']:.1f}"
    )


def plain(line: pd.Series) -> str:
    """A difference that is no proportion, with its interval."""
    return f"{line['setting']}, {line['measure']}: {line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"


def sharper(numbers: pd.DataFrame) -> Verdict:
    """More fine detail than VAE and AE, and nearer to the original's, in every training and over compounds.

    More detail that is further from the original's, as a grid of artefacts would be, is partly.
    """
    others = ("VAE", "AE")
    more = lines_of(numbers, *((f"VAE+ - {other}", "paired", "sharpness") for other in others))
    misfit = lines_of(numbers, *((f"VAE+ - {other}", "paired", MISFIT) for other in others))
    if refused := not_judged(more + misfit, 4):
        return refused
    won = [line["low"] > 0 and line["agree"] == 1 for line in more]
    nearer = [line["high"] < 0 and line["agree"] == 1 for line in misfit]
    verdict = REPRODUCED if all(won + nearer) else PARTLY if any(won) else NOT
    return Verdict(verdict, "; ".join(map(plain, more + misfit)))


def at_least_as_accurate(numbers: pd.DataFrame) -> Verdict:
    """Mean difference over the four summaries, for NSC and NSCB: VAE+ is certainly not 5 points worse than VAE.

    Reproduced if both intervals lie above -5 points; not reproduced if one lies below 0; else partly: undecided.
    """
    lines = lines_of(numbers, *(("VAE+ - VAE", "paired", measure) for measure in MEASURES))
    if refused := not_judged(lines, 2):
        return refused
    return not_worse([(line["low"], line["high"]) for line in lines], "; ".join(map(points, lines)))


def ae_matches(numbers: pd.DataFrame) -> Verdict:
    """Mean difference over the four summaries, for NSC and NSCB: AE is certainly not 5 points worse than VAE+.

    Reproduced if both intervals of VAE+ - AE lie below 5 points; not reproduced if one lies above 0; else partly:
    undecided.
    """
    lines = lines_of(numbers, *(("VAE+ - AE", "paired", measure) for measure in MEASURES))
    if refused := not_judged(lines, 2):
        return refused
    return not_worse([(-line["high"], -line["low"]) for line in lines], "; ".join(map(points, lines)))


def not_worse(intervals: list[tuple[float, float]], evidence: str) -> Verdict:
    """Verdict on differences none of which may be below 0 by more than the margin."""
    if any(high < 0 for _, high in intervals):
        return Verdict(NOT, evidence)
    return Verdict(REPRODUCED if all(low > -MARGIN for low, _ in intervals) else PARTLY, evidence)


def whitening_helps(numbers: pd.DataFrame) -> Verdict:
    """All three models gain, and the gain over them together is certain; partly if only the mean is above 0."""
    settings = [*PAPER_MODELS, "all models"]
    lines = lines_of(numbers, *((f"{name}: whitened - mean", "paired", "NSCB") for name in settings))
    if refused := not_judged(lines, len(settings)):
        return refused
    together = lines[-1]
    every = all(line["value"] > 0 for line in lines) and together["low"] > 0
    verdict = REPRODUCED if every else PARTLY if together["value"] > 0 else NOT
    return Verdict(verdict, "; ".join(map(points, lines)))


def walk_rises(numbers: pd.DataFrame) -> Verdict:
    """Walks of VAE+ to all treatments, feature by feature.

    Reproduced if the interval of the share that only rises lies above 95 %; partly if the largest fall, from any point
    of a walk to a later one, is below 0.01 on average, which no figure shows; else not.
    """
    names = ("walks that only rise", "largest fall", "features that lower the similarity")
    lines = lines_of(numbers, *(("VAE+", "walk", name) for name in names))
    if refused := not_judged(lines, 3):
        return refused
    rising, fall, share = lines
    verdict = REPRODUCED if rising["low"] >= 0.95 else PARTLY if fall["value"] < SMALL_FALL else NOT
    return Verdict(
        verdict,
        f"{100 * rising['value']:.1f} % of walks to all treatments only rise; {100 * share['value']:.2f} % of features "
        f"lower the similarity; the largest fall of a walk is {fall['value']:.4f} on average",
    )


def progression_matters(numbers: pd.DataFrame) -> Verdict:
    """VAE+ against VAE+ with all feature terms from the first step: sharpness nearer to the original's, NSC, or NSCB.

    Better is: in every training, with an interval that excludes 0. Reproduced if one of the three is better and none is
    certainly worse; partly if one is better and another certainly worse; else not.
    """
    names = (MISFIT, *MEASURES)
    lines = lines_of(numbers, *(("VAE+ - VAE+ at once", "paired", name) for name in names))
    if refused := not_judged(lines, 3):
        return refused
    gains = [
        (-line["high"], -line["low"]) if line["measure"] == MISFIT else (line["low"], line["high"]) for line in lines
    ]
    better = any(low > 0 and line["agree"] == 1 for (low, _), line in zip(gains, lines, strict=True))
    worse = any(high < 0 for _, high in gains)
    verdict = NOT if not better else PARTLY if worse else REPRODUCED
    return Verdict(verdict, "; ".join([plain(lines[0]), *map(points, lines[1:])]))


PREDICATES: dict[str, Predicate] = {
    "sharper": sharper,
    "at-least-as-accurate": at_least_as_accurate,
    "ae-matches": ae_matches,
    "whitening-helps": whitening_helps,
    "walk-rises": walk_rises,
    "progression-matters": progression_matters,
}
