"""What decides each claim of the page.

A claim needs at least three trainings of every model that it compares, and the premise of `judging`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.lafarge2019.config import PAPER_MODELS
from cellbook.pages.lafarge2019.measures import FALLING
from cellbook.study.judging import needs, not_worse, refused
from cellbook.study.reconstructions import MISFIT
from cellbook.study.rows import one
from cellbook.study.words import points

MEASURES = ("NSC", "NSCB")
SMALL_FALL = 0.01  # a fall of the similarity that nobody sees in a figure
MARGIN = 0.05  # of accuracy, about five treatments: less than this is "as accurate"; ours, as the paper has no test


def lines_of(
    numbers: pd.DataFrame, settings: Iterable[str], measures: Iterable[str], protocol: str = "paired"
) -> list[pd.Series | None]:
    """The lines of every setting and measure, None for those that are not there."""
    settings = list(settings)
    return [one(numbers, setting=a, protocol=protocol, measure=b) for b in measures for a in settings]


def accuracies(lines: Iterable[pd.Series]) -> str:
    """Differences of accuracies with their intervals and spreads, as evidence."""
    return "; ".join(
        points(line, f"{line['setting']}, {line['measure']}:") + f", spread over trainings {100 * line['sd']:.1f}"
        for line in lines
    )


def plain(lines: Iterable[pd.Series]) -> str:
    """Differences that are no proportions with their intervals, as evidence."""
    return "; ".join(
        f"{line['setting']}, {line['measure']}: {line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"
        for line in lines
    )


@needs(PAPER_MODELS, [MISFIT])
def sharper(numbers: pd.DataFrame) -> Verdict:
    """More fine detail than VAE and AE, and nearer to the original's, in every training and over compounds.

    More detail that is further from the original's, as a grid of artefacts would be, is partly.
    """
    others = [f"VAE+ - {other}" for other in ("VAE", "AE")]
    more, misfit = (lines_of(numbers, others, [name]) for name in ("sharpness", MISFIT))
    if verdict := refused(more + misfit, 4):
        return verdict
    won = [line["low"] > 0 and line["agree"] == 1 for line in more]
    nearer = [line["high"] < 0 and line["agree"] == 1 for line in misfit]
    return Verdict(REPRODUCED if all(won + nearer) else PARTLY if any(won) else NOT, plain(more + misfit))


@needs(["VAE+", "VAE"], MEASURES)
def at_least_as_accurate(numbers: pd.DataFrame) -> Verdict:
    """Mean difference over the four summaries, for NSC and NSCB: VAE+ is certainly not 5 points worse than VAE.

    Not reproduced if an interval lies wholly below 0; else reproduced if both lie above -5 points; else partly.
    """
    lines = lines_of(numbers, ["VAE+ - VAE"], MEASURES)
    if verdict := refused(lines, 2):
        return verdict
    return not_worse([(line["low"], line["high"]) for line in lines], MARGIN, accuracies(lines))


@needs(["VAE+", "AE"], MEASURES)
def ae_matches(numbers: pd.DataFrame) -> Verdict:
    """Mean difference over the four summaries, for NSC and NSCB: AE is certainly not 5 points worse than VAE+.

    Of VAE+ - AE: not reproduced if an interval lies wholly above 0; else reproduced if both lie below 5 points; else
    partly.
    """
    lines = lines_of(numbers, ["VAE+ - AE"], MEASURES)
    if verdict := refused(lines, 2):
        return verdict
    return not_worse([(-line["high"], -line["low"]) for line in lines], MARGIN, accuracies(lines))


@needs(PAPER_MODELS, ["NSCB"])
def whitening_helps(numbers: pd.DataFrame) -> Verdict:
    """All three models gain, and the gain over them together is certain; partly if only the mean is above 0."""
    settings = [f"{name}: whitened - mean" for name in (*PAPER_MODELS, "all models")]
    lines = lines_of(numbers, settings, ["NSCB"])
    if verdict := refused(lines, len(settings)):
        return verdict
    together = lines[-1]
    every = all(line["value"] > 0 for line in lines) and together["low"] > 0
    return Verdict(REPRODUCED if every else PARTLY if together["value"] > 0 else NOT, accuracies(lines))


@needs(["VAE+"], [FALLING])
def walk_rises(numbers: pd.DataFrame) -> Verdict:
    """Walks of VAE+ to all treatments, feature by feature.

    Reproduced if the interval of the share that only rises lies above 95 %; partly if the largest fall, from any point
    of a walk to a later one, is below 0.01 on average, too small to be seen in a figure; else not.
    """
    names = ("walks that only rise", "largest fall", FALLING)
    lines = lines_of(numbers, ["VAE+"], names, protocol="walk")
    if verdict := refused(lines, 3):
        return verdict
    rising, fall, share = lines
    return Verdict(
        REPRODUCED if rising["low"] >= 0.95 else PARTLY if fall["value"] < SMALL_FALL else NOT,
        f"{100 * rising['value']:.1f} % of walks to all treatments only rise; {100 * share['value']:.2f} % of features "
        f"lower the similarity; the largest fall of a walk is {fall['value']:.4f} on average",
    )


@needs(["VAE+", "VAE+ at once"], [MISFIT, *MEASURES])
def progression_matters(numbers: pd.DataFrame) -> Verdict:
    """VAE+ against VAE+ with all feature terms from the first step: sharpness nearer to the original's, NSC, or NSCB.

    Better is: in every training, with an interval that excludes 0. Reproduced if one of the three is better and none is
    certainly worse; partly if one is better and another certainly worse; else not.
    """
    lines = lines_of(numbers, ["VAE+ - VAE+ at once"], (MISFIT, *MEASURES))
    if verdict := refused(lines, 3):
        return verdict
    misfit, *accurate = lines
    gains = [(-misfit["high"], -misfit["low"]), *((line["low"], line["high"]) for line in accurate)]
    better = any(low > 0 and line["agree"] == 1 for (low, _), line in zip(gains, lines, strict=True))
    worse = any(high < 0 for _, high in gains)
    return Verdict(NOT if not better else PARTLY if worse else REPRODUCED, f"{plain([misfit])}; {accuracies(accurate)}")


PREDICATES: dict[str, Predicate] = {
    "sharper": sharper,
    "at-least-as-accurate": at_least_as_accurate,
    "ae-matches": ae_matches,
    "whitening-helps": whitening_helps,
    "walk-rises": walk_rises,
    "progression-matters": progression_matters,
}
