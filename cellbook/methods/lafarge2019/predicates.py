"""What decides each claim of the page; a claim needs at least three trainings of every model that it compares."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.methods.lafarge2019.config import PAPER_MODELS
from cellbook.methods.lafarge2019.tables import pick

LEAST = 3  # trainings behind a verdict
SMALL_FALL = 0.01  # a fall of the similarity that nobody sees in a figure


def lines_of(numbers: pd.DataFrame, *wanted: tuple[str, str, str]) -> list[pd.Series]:
    """The rows of the numbers with these (setting, protocol, measure)."""
    found = [pick(numbers, setting=a, protocol=b, measure=c) for a, b, c in wanted]
    return [part.iloc[0] for part in found if len(part)]


def not_judged(lines: list[pd.Series], needed: int) -> Verdict | None:
    """Why no verdict is given, if none is."""
    if len(lines) < needed:
        return Verdict(INCOMPARABLE, "not judged: the models that it compares were not trained")
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
    misfit = lines_of(numbers, *((f"VAE+ - {other}", "paired", "misfit of sharpness") for other in others))
    if refused := not_judged(more + misfit, 4):
        return refused
    won = [line["low"] > 0 and line["agree"] == 1 for line in more]
    nearer = [line["high"] < 0 and line["agree"] == 1 for line in misfit]
    verdict = REPRODUCED if all(won + nearer) else PARTLY if any(won) else NOT
    return Verdict(verdict, "; ".join(map(plain, more + misfit)))


def at_least_as_accurate(numbers: pd.DataFrame) -> Verdict:
    """Mean difference over the four summaries: none below 0 is reproduced, one certainly below 0 is not."""
    lines = lines_of(numbers, *(("VAE+ - VAE", "paired", measure) for measure in ("NSC", "NSCB")))
    if refused := not_judged(lines, 2):
        return refused
    worse = any(line["high"] < 0 for line in lines)
    verdict = NOT if worse else REPRODUCED if all(line["value"] >= 0 for line in lines) else PARTLY
    return Verdict(verdict, "; ".join(map(points, lines)))


def ae_matches(numbers: pd.DataFrame) -> Verdict:
    """The interval of the difference holds 0, for NSC and NSCB; an AE that is better than VAE+ counts as well."""
    lines = lines_of(numbers, *(("VAE+ - AE", "paired", measure) for measure in ("NSC", "NSCB")))
    if refused := not_judged(lines, 2):
        return refused
    matched = sum(line["low"] <= 0 for line in lines)
    return Verdict((NOT, PARTLY, REPRODUCED)[matched], "; ".join(map(points, lines)))


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
    """95 % of the walks of VAE+ never fall, feature by feature; partly if no fall is visible on average."""
    names = ("walks that only rise", "largest fall", "features that lower the similarity")
    lines = lines_of(numbers, *(("VAE+", "walk", name) for name in names))
    if refused := not_judged(lines, 3):
        return refused
    rising, fall, share = lines
    verdict = REPRODUCED if rising["value"] >= 0.95 else PARTLY if fall["value"] < SMALL_FALL else NOT
    return Verdict(
        verdict,
        f"{100 * rising['value']:.1f} % of walks to all treatments only rise; {100 * share['value']:.2f} % of features "
        f"lower the similarity; the largest fall of a walk is {fall['value']:.4f} on average",
    )


def progression_matters(numbers: pd.DataFrame) -> Verdict:
    """Sharper or more accurate with certainty is reproduced; partly if one goes up and another certainly down."""
    names = ("sharpness", "NSC", "NSCB")
    lines = lines_of(numbers, *(("VAE+ - VAE+ at once", "paired", name) for name in names))
    if refused := not_judged(lines, 3):
        return refused
    better, worse = any(line["low"] > 0 for line in lines), any(line["high"] < 0 for line in lines)
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
