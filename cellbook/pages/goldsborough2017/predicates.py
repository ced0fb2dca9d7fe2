"""What decides each claim of the page.

A claim needs at least three trainings of every model that it compares, and the premise of `judging`. Better is: in
every training, with an interval that excludes 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cellbook.claims import NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.goldsborough2017.config import DCGAN, GANS, LSGAN, VAE, WGAN
from cellbook.pages.goldsborough2017.drawn import ANY, ARC, AREA, ONE, TUBULIN
from cellbook.pages.goldsborough2017.features import BY_CELLS, PLAIN
from cellbook.pages.goldsborough2017.making import REAL
from cellbook.pages.goldsborough2017.measures import (
    BETWEEN,
    HALO,
    HAS_HALO,
    NSC,
    OFF,
    PATHS,
    RISES,
    SAMPLES,
    protocol_of,
)
from cellbook.pages.goldsborough2017.progress import ALONG, AMONG, FALLBACK, QUALITY, RHO, TOGETHER
from cellbook.pages.goldsborough2017.quality import DUPLICATES, KID
from cellbook.study.encoding import CLASSICAL, IMAGENET, RANDOM
from cellbook.study.judging import judged, needs, refused
from cellbook.study.rows import one
from cellbook.study.show import percent
from cellbook.study.words import points

SMALL = 0.1  # octaves: a fall of the Fréchet distance from its best, about 7 %
BY_RANDOM = f"paired, {protocol_of(RANDOM)}"
PROPERTIES = (AREA, TUBULIN)

Lines = Sequence[pd.Series | None]


def above(line: pd.Series) -> bool:
    """Whether a difference lies above 0 in every training and with its interval."""
    return bool(line["low"] > 0 and line["agree"] == 1)


def below(line: pd.Series) -> bool:
    """Whether it lies below 0 in every training and with its interval."""
    return bool(line["high"] < 0 and line["agree"] == 1)


def accuracy(numbers: pd.DataFrame, a: str, b: str, summary: str = PLAIN) -> pd.Series | None:
    """The line of a variant's accuracy less another's, as the paper averages."""
    return one(numbers, setting=f"{a}, {summary} - {b}, {PLAIN}", protocol="paired", measure=NSC)


def plain(lines: Lines) -> list[str]:
    """Numbers that are no proportions, with their intervals where they have one, as evidence."""
    found = []
    for line in lines:
        bounds = f" [{line['low']:+.3f}, {line['high']:+.3f}]" if pd.notna(line["low"]) else ""  # type: ignore[index]
        found.append(f"{line['setting']}, {line['measure']}: {line['value']:+.3f}{bounds}")  # type: ignore[index]
    return found


def differences(lines: Lines) -> list[str]:
    """Differences of proportions with their intervals, as evidence."""
    return [points(line, f"{line['setting']}, {line['measure']}:") for line in lines]  # type: ignore[arg-type, index]


@needs(GANS, [KID])
def lsgan_is_best(numbers: pd.DataFrame) -> Verdict:
    """LSGAN against DCGAN and WGAN-GP: fine detail nearer to that of real cells, and less of a fall from its best.

    The fall is of the Fréchet distance, from the best checkpoint to the end; less is: in every training. Reproduced if
    all four hold, partly if some do, else not.
    """
    rivals = [f"{LSGAN} - {other}" for other in (DCGAN, WGAN)]
    sharp = [one(numbers, setting=name, protocol=f"paired, {SAMPLES}", measure=OFF) for name in rivals]
    stable = [one(numbers, setting=name, protocol="paired", measure=FALLBACK) for name in rivals]
    if verdict := refused(sharp, 2) or refused(stable, 2, bounded=False):
        return verdict
    steady = [line["value"] < 0 and line["agree"] == 1 for line in stable]  # type: ignore[index]
    return judged([*map(below, sharp), *steady], plain([*sharp, *stable]))  # type: ignore[arg-type]


@needs([LSGAN, DCGAN], [])
def dcgan_collapses(numbers: pd.DataFrame) -> Verdict:
    """Near duplicates among images of DCGAN: certainly more than among real cells, and more than LSGAN has.

    Reproduced if both hold, partly if one does, else not.
    """
    names = (f"{DCGAN} - {REAL}", f"{LSGAN} - {DCGAN}")
    lines = [one(numbers, setting=name, protocol=BY_RANDOM, measure=DUPLICATES) for name in names]
    if verdict := refused(lines, 2):
        return verdict
    more, fewer = lines
    return judged([above(more), below(fewer)], differences(lines))  # type: ignore[arg-type]


@needs([LSGAN, WGAN], [KID])
def wgan_is_worse(numbers: pd.DataFrame) -> Verdict:
    """WGAN-GP ends within a tenth of an octave of its best Fréchet distance, and LSGAN's images are nearer to cells.

    Nearer by the kernel distance, in every training, with an interval below 0. Reproduced if both hold, partly if one
    does, else not.
    """
    fall = one(numbers, setting=WGAN, protocol=QUALITY, measure=FALLBACK)
    gap = one(numbers, setting=f"{LSGAN} - {WGAN}", protocol=BY_RANDOM, measure=KID)
    if verdict := refused([gap]) or refused([fall], bounded=False):
        return verdict
    return judged([fall["value"] < SMALL, below(gap)], plain([fall, gap]))  # type: ignore[arg-type, index]


@needs([*GANS, VAE], [NSC])
def gans_beat_vae(numbers: pd.DataFrame) -> Verdict:
    """Accuracy of DCGAN, LSGAN and WGAN-GP against that of the VAE, mean profiles.

    Reproduced if all three are better, partly if some are, else not.
    """
    lines = [accuracy(numbers, gan, VAE) for gan in GANS]
    return refused(lines, 3) or judged(map(above, lines), differences(lines))  # type: ignore[arg-type]


@needs(GANS, [NSC])
def below_classical(numbers: pd.DataFrame) -> Verdict:
    """Accuracy of classical and of ImageNet features against that of DCGAN, LSGAN and WGAN-GP, all as plain means.

    Reproduced if all six differences are above 0, partly if some are, else not. Classical and ImageNet features are
    standardised by DMSO cells; how far whitening takes them plays no part.
    """
    lines = [accuracy(numbers, other, gan) for other in (CLASSICAL, IMAGENET) for gan in GANS]
    return refused(lines, 6) or judged(map(above, lines), differences(lines))  # type: ignore[arg-type]


@needs([LSGAN], [NSC])
def whitening_helps(numbers: pd.DataFrame) -> Verdict:
    """Accuracy of LSGAN with the paper's whitening, by DMSO cells of all plates, against that without.

    Reproduced if it is better, partly if it is higher on average, else not.
    """
    line = accuracy(numbers, LSGAN, LSGAN, BY_CELLS)
    if verdict := refused([line]):
        return verdict
    found = REPRODUCED if above(line) else PARTLY if line["value"] > 0 else NOT  # type: ignore[arg-type, index]
    return Verdict(found, differences([line])[0])


@needs([LSGAN], [KID])
def paths_mean_something(numbers: pd.DataFrame) -> Verdict:
    """LSGAN, arcs between two random codes: the middle image lies between the ends more often than a third, chance.

    By nuclear area and by tubulin, each with the whole interval. Reproduced if both do, partly if one does, else not.
    """
    lines = [one(numbers, setting=f"{LSGAN}, {name}, {ARC}", protocol=PATHS, measure=BETWEEN) for name in PROPERTIES]
    if verdict := refused(lines, 2):
        return verdict
    return judged((line["low"] > line["null"] for line in lines), levels(lines))  # type: ignore[index]


@needs([LSGAN], [KID])
def sums_mean_something(numbers: pd.DataFrame) -> Verdict:
    """LSGAN, a - b + c with a of the most and b of the least: the property rises more often than with any a and b.

    By nuclear area and by tubulin, the same c. Reproduced if it does for both, partly if for one, else not.
    """
    names = [f"{LSGAN}, {name}: {ONE} - {ANY}" for name in PROPERTIES]
    lines = [one(numbers, setting=name, protocol="paired", measure=RISES) for name in names]
    return refused(lines, 2) or judged(map(above, lines), differences(lines))  # type: ignore[arg-type]


@needs([LSGAN], [KID])
def halo_is_there(numbers: pd.DataFrame) -> Verdict:
    """Tubulin is brighter next to the nucleus than in it and away from it, in most real cells and images of LSGAN.

    Most is: certainly more than half. Reproduced if it is so in both, partly if in one, else not.
    """
    real, made = (one(numbers, setting=name, protocol=HALO, measure=HAS_HALO) for name in (REAL, LSGAN))
    if verdict := refused([made], why="no images were drawn"):
        return verdict
    there = [line for line in (real, made) if line is not None]
    texts = [f"{line['setting']}: {percent(line['value'], line['low'], line['high'])}" for line in there]
    return judged([len(there) == 2, *(line["low"] > 0.5 for line in there)], texts)


@needs(GANS, [NSC, KID])
def rise_together(numbers: pd.DataFrame) -> Verdict:
    """Rank correlation of accuracy with how small the Fréchet distance is, over checkpoints and over trainings' ends.

    Of all GANs. Reproduced if both intervals lie above 0, partly if one does, else not.
    """
    lines = [one(numbers, setting=name, protocol=TOGETHER, measure=RHO) for name in (ALONG, AMONG)]
    return refused(lines, 2) or judged((line["low"] > 0 for line in lines), plain(lines))  # type: ignore[index]


def levels(lines: Lines) -> list[str]:
    """Proportions with their intervals and chance, as evidence."""
    return [
        f"{line['setting']}, {line['measure']}: {percent(line['value'], line['low'], line['high'])} (chance "  # type: ignore[index]
        f"{percent(line['null'])})"  # type: ignore[index]
        for line in lines
    ]


PREDICATES: dict[str, Predicate] = {
    "lsgan-is-best": lsgan_is_best,
    "dcgan-collapses": dcgan_collapses,
    "wgan-is-worse": wgan_is_worse,
    "gans-beat-vae": gans_beat_vae,
    "below-classical": below_classical,
    "whitening-helps": whitening_helps,
    "paths-mean-something": paths_mean_something,
    "sums-mean-something": sums_mean_something,
    "halo-is-there": halo_is_there,
    "rise-together": rise_together,
}
