"""The evaluation protocol of each paper, by name.

What the papers call accuracy differs in the unit, the aggregation, the candidates, the vote and the average. A protocol
writes those choices down; `describe` prints them for the reader.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cellbook.errors import CellbookError
from cellbook.metrics.neighbours import Distance, Vote, plain
from cellbook.metrics.uncertainty import Average
from cellbook.profiles.aggregate import TREATMENT

Statistic = Literal["mean", "median"]
SAME_COMPOUND = ("Metadata_compound",)
SAME_COMPOUND_OR_BATCH = ("Metadata_compound", "Metadata_batch")


@dataclass(frozen=True)
class Measure:
    """One number of a protocol: the arguments of `match`, and whether the largest class stands beside it."""

    name: str
    label: str = "Metadata_moa"
    exclude: tuple[str, ...] = SAME_COMPOUND
    k: int = 1
    vote: Vote = "share"
    average: Average = "queries"
    drop_unmatchable: bool = False
    count_unmatchable: bool = False
    null: bool = False  # give the frequency of the largest class among the queries as null accuracy

    def arguments(self) -> dict[str, Any]:
        """Collect what `match` takes."""
        return {key: value for key, value in asdict(self).items() if key not in ("name", "null")}


@dataclass(frozen=True)
class Protocol:
    """How one paper goes from wells to accuracies."""

    name: str
    paper: str
    measures: tuple[Measure, ...]
    unit: tuple[str, ...] = tuple(TREATMENT)
    statistic: Statistic = "median"
    distance: Distance = "cosine"
    weight: str | None = None  # column that weights the rows in a mean
    drop_one_batch_moas: bool = False
    one_batch_each: bool = False
    note: str = ""


def _both(k: int = 1, vote: Vote = "share", *, drop_unmatchable: bool = False) -> tuple[Measure, Measure]:
    return (
        Measure("NSC", exclude=SAME_COMPOUND, k=k, vote=vote),
        Measure("NSCB", exclude=SAME_COMPOUND_OR_BATCH, k=k, vote=vote, drop_unmatchable=drop_unmatchable),
    )


def _tabak(vote: Vote) -> tuple[Measure, ...]:
    return tuple(measure for k in (1, 2, 3, 4) for measure in _both(k, vote))


def _glastonbury(name: str, label: str, exclude: tuple[str, ...]) -> Measure:
    # Leaving one out, a batch with a single treatment can never be right, and the paper counts it among the 92.
    return Measure(name, label, exclude, k=3, vote="majority", null=True, count_unmatchable=not exclude)


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "ljosa2013",
            "Ljosa et al. 2013",
            _both(),
            note="The benchmark's own protocol. Treatments that cannot be scored in NSCB remain candidates.",
        ),
        Protocol(
            "goldsborough2017",
            "Goldsborough et al. 2017 (CytoGAN)",
            (Measure("NSC", average="compounds"),),
            statistic="mean",
            weight="Metadata_cell_count",
            note="The mean over compounds gives a compound with one dose the weight of one with seven: not comparable "
            "with an accuracy over treatments.",
        ),
        Protocol(
            "caicedo2018",
            "Caicedo et al. 2018 (weak supervision)",
            _both(drop_unmatchable=True),
            note="After the published notebook: a median (the paper says mean; the notebook takes it over fields, here "
            "it is over wells), and treatments that cannot be scored in NSCB are no candidates either.",
        ),
        Protocol(
            "glastonbury2018",
            "Glastonbury et al. 2018 (fair autoencoder)",
            (
                _glastonbury("MOA", "Metadata_moa", ()),
                _glastonbury("week", "Metadata_batch", ()),
                _glastonbury("MOA-NSC", "Metadata_moa", SAME_COMPOUND),
                _glastonbury("week-NSC", "Metadata_batch", SAME_COMPOUND),
            ),
            statistic="mean",
            distance="euclidean",
            drop_one_batch_moas=True,
            one_batch_each=True,
            note="Leave one treatment out: other doses of the compound stay, so MOA is not comparable with NSC, and "
            "week rewards knowing the compound. The -NSC measures, not in the paper, exclude the compound as well. "
            "Distance, aggregation and the rule for ties are not printed in the paper; these are our choice.",
        ),
        Protocol(
            "lafarge2019",
            "Lafarge et al. 2019 (VAE+)",
            _both(),
            note="Cosine is the community's habit; the paper does not print the distance.",
        ),
        Protocol(
            "tabak2020",
            "Tabak et al. 2020 (Wasserstein distance network)",
            _tabak("pooled"),
            unit=(*TREATMENT, "Metadata_batch"),
            statistic="mean",
            weight="Metadata_cell_count",
            note="As in the paper's tables: k is cut to the number of right candidates, and all neighbours are pooled.",
        ),
        Protocol(
            "tabak2020-plain",
            "Tabak et al. 2020, as its text reads",
            _tabak("share"),
            unit=(*TREATMENT, "Metadata_batch"),
            statistic="mean",
            weight="Metadata_cell_count",
            note="The share of all k neighbours: even a perfect representation stays below 1 where an MOA has fewer "
            "than k candidates.",
        ),
    )
}


def protocol(name: str | Protocol) -> Protocol:
    """Look up a protocol by its key in `PROTOCOLS`; a Protocol is returned as it is."""
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(str(name).lower(), PROTOCOLS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise CellbookError(f"there is no protocol {name!r}{hint} The protocols are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def describe(name: str | Protocol) -> list[tuple[str, str]]:
    """List a protocol's choices as (what, how) rows, in the words of the book's protocol boxes."""
    p = protocol(name)
    aggregation = f"{p.statistic} over wells, feature by feature"
    if p.weight is not None:
        aggregation += f", weighted by {p.weight} where present (then a mean over cells)"
    which = "all but those of MOAs seen in one batch only" if p.drop_one_batch_moas else "all with an MOA"
    rows = [
        ("paper", p.paper),
        ("unit", " and ".join(map(plain, p.unit))),
        ("aggregation", aggregation),
        ("controls", "left out"),
        ("treatments", which),
        ("distance", f"{p.distance}, equal distances in the order of the rows"),
    ]
    if p.one_batch_each:
        rows.append(("batch of a treatment in several", "the one with most of its wells"))
    kinds: dict[str, list[Measure]] = {}
    for measure in p.measures:
        kinds.setdefault(measure.name, []).append(measure)
    words = {name: _in_words(same) for name, same in kinds.items()}
    rows.append(("measures", ", ".join(kinds)))
    for what in words[p.measures[0].name]:
        names: dict[str, list[str]] = {}
        for name, in_words in words.items():
            names.setdefault(in_words[what], []).append(name)
        parts = [how if len(names) == 1 else f"{', '.join(who)}: {how}" for how, who in names.items()]
        rows.append((what, "; ".join(parts)))
    return [*rows, ("note", p.note)] if p.note else rows


def _in_words(same: list[Measure]) -> dict[str, str]:
    """Describe measures that differ in k alone."""
    m, ks = same[0], [s.k for s in same]
    votes = {
        "share": "share of the k neighbours that are right",
        "majority": "majority of the k neighbours, ties to the closest of the tied",
        "pooled": "k cut to the number of right candidates, share of all neighbours that are right",
    }
    if m.count_unmatchable:
        counted = "all (wrong if there is no right candidate)"
    elif m.drop_unmatchable:
        counted = "those with a right candidate (the others are no candidates either)"
    else:
        counted = "those with a right candidate (the others stay candidates)"
    return {
        "label": plain(m.label),
        "excluded candidates": f"same {' or same '.join(map(plain, m.exclude))}"
        if m.exclude
        else "the treatment alone",
        "k": f"{ks[0]} to {ks[-1]}" if len(ks) > 1 else str(ks[0]),
        "vote": "the nearest is right or not" if ks == [1] else votes[m.vote],
        "average": "mean over compounds of their shares" if m.average == "compounds" else "over all queries",
        "queries that count": counted,
    }
