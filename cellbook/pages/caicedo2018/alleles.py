"""Genes matched by alleles: Table 1 of the paper on published correlations of another, later genetic screen.

375 alleles of 50 genes were put into A549 cells on two plate maps; how the medians of their ImageNet features correlate
is published (Caicedo et al. 2022). An allele is right if its nearest neighbour is of the same gene. No image and no
correlation is kept, only what came out for each allele.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.files import digest
from cellbook.runs import Run, obtain, save_table
from cellbook.screens import locate
from cellbook.screens.named import checksums
from cellbook.study.rows import Draws, Votes, average, counts, difference
from cellbook.study.words import accuracy, points

VERSION = 1
MAPS = ("platemap_DOC45.46.47.48.txt", "platemap_DOC49.50.51.52.txt")
CORRELATIONS, BENCHMARK = "375.json", "benchmark.csv"
FILES = (CORRELATIONS, BENCHMARK, *MAPS)
PROTOCOL, MEASURE = "genes", "gene accuracy"
ALL, ELSEWHERE = "all alleles are candidates", "candidates not on just the same maps"


def outcomes(store: str | Path) -> list[Run]:
    """The run of the outcome of every allele, made if it is not there; none where the data are not on this machine."""
    if not all(locate.is_local(name) for name in FILES):
        return []

    def make(folder: Path) -> None:
        benchmark = pd.read_csv(locate.find(BENCHMARK))["Allele"]
        alleles, correlation = read(locate.find(CORRELATIONS))
        maps = plate_maps([locate.find(name) for name in MAPS], alleles["allele"])
        found = match(correlation, alleles["gene"].to_numpy(), maps)
        table = pd.concat([alleles, found], axis=1).assign(benchmark=alleles["allele"].isin(benchmark))
        save_table(table, folder / "alleles.parquet")

    return [obtain(store, "alleles", VERSION, {"screen": "luad"}, digest(checksums(FILES))[:32], make)]


def read(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Alleles with their genes, and how their profiles correlate, (n, n), from the published matrix."""
    stored = json.loads(path.read_text(encoding="utf-8"))["dataset"]
    names = {vector["name"]: vector["array"] for vector in stored["rowMetadataModel"]["vectors"]}
    table = pd.DataFrame({"allele": names["id"], "gene": names["gene"]})
    return table, np.array(stored["seriesArrays"][0], dtype=np.float64)


def plate_maps(paths: list[Path], alleles: pd.Series) -> np.ndarray:
    """Which alleles lie on which plate map, (n, maps) bool; some are on both."""
    on = [alleles.isin(pd.read_csv(path, sep="\t")["x_mutation_status"]) for path in paths]
    return np.stack(on, axis=1)


def match(correlation: np.ndarray, genes: np.ndarray, maps: np.ndarray) -> pd.DataFrame:
    """Whether the nearest neighbour of each allele is of its gene, and what is expected of permuted labels.

    Parameters
    ----------
    correlation : (n, n)
    genes : (n,)
    maps : (n, plate maps) bool

    Returns
    -------
    DataFrame
        `all` of all other alleles; `elsewhere` of those that do not lie on the same maps, and `asked`, whether one of
        these is of the gene; `separate`, whether one is that shares no map at all; `one_map`, whether the neighbour
        lies on a map of the allele's, and `one_map_chance`, the share of such candidates; `chance` and
        `chance_within_maps`, the probability that the neighbour is right once labels are permuted among all alleles, or
        among those on the same maps.
    """
    n = len(genes)
    others, group = ~np.eye(n, dtype=bool), np.unique(maps, axis=0, return_inverse=True)[1].reshape(-1)
    same, apart = (genes[:, None] == genes) & others, group[:, None] != group
    shared = (maps.astype(int) @ maps.T.astype(int)) > 0
    nearest = np.where(others, correlation, -np.inf).argmax(axis=1)
    away = np.where(apart, correlation, -np.inf).argmax(axis=1)
    count = pd.crosstab(group, genes).to_numpy().astype(np.float64)  # (groups, genes)
    size = count.sum(axis=1)
    pairs = (count @ count.T - np.diag(size)) / (size[:, None] * size - np.diag(size))
    rows = np.arange(n)
    return pd.DataFrame(
        {
            "all": genes[nearest] == genes,
            "elsewhere": genes[away] == genes,
            "asked": (same & apart).any(axis=1),
            "separate": (same & ~shared).any(axis=1),
            "one_map": shared[rows, nearest],
            "one_map_chance": (shared & others).sum(axis=1) / (n - 1),
            "chance": same.sum() / (n * (n - 1)),
            "chance_within_maps": pairs[group, group[nearest]],
        }
    )


def lines(run: Run, draws: Draws) -> Iterator[dict[str, Any]]:
    """Gene accuracies with intervals over genes, and what permuted labels would give."""
    table = run.table("alleles")
    votes = {name: Votes.of(table[name], table["gene"]) for name in table if name not in ("allele", "gene")}
    asked, known = table["asked"].to_numpy(), table["benchmark"].to_numpy()
    parts = {
        f"alleles, {ALL}": votes["all"],
        "alleles of known effect": votes["all"].where(known),
        f"alleles with a match elsewhere, {ALL}": votes["all"].where(asked),
        f"alleles with a match elsewhere, {ELSEWHERE}": votes["elsewhere"].where(asked),
        "labels permuted": votes["chance"],
        "labels permuted within plate maps": votes["chance_within_maps"],
    }
    for setting, vote in parts.items():
        yield average(setting, PROTOCOL, MEASURE, [vote], draws, **counts([vote]))
    sides = [[votes[name].where(asked)] for name in ("elsewhere", "all")]
    yield difference("alleles with a match elsewhere: elsewhere - all", PROTOCOL, MEASURE, *sides, draws)
    for setting, name in (("neighbour", "one_map"), ("any candidate", "one_map_chance")):
        yield average(f"{setting} on a plate map of the allele's", PROTOCOL, "one plate map", [votes[name]], draws)


def table_1(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of `lines` as the page shows them."""
    mine = table[table["protocol"] == PROTOCOL]
    texts = [points(line) if " - " in line["setting"] else accuracy(line) for _, line in mine.iterrows()]
    scored = mine["scored"].map("{:.0f}".format).replace("nan", "–")
    return pd.DataFrame({"": mine["setting"], "measure": mine["measure"], "per cent": texts, "alleles": scored})


def words(run: Run) -> str:
    """How far the layout of the screen allows to tell a gene from its plate map, as a sentence."""
    table = run.table("alleles")
    separate = table[table["separate"]]
    genes, asked = separate["gene"].nunique(), table["asked"].sum()
    return (
        f"Of {len(table)} alleles {asked} have another allele of their gene that is not on just the same plate maps: "
        f"nearly always one of the two is on both maps, so that they share one. Only {len(separate)}, of {genes} of "
        f"{table['gene'].nunique()} genes, have one with which they share no map: the alleles of every other gene "
        "have a map in common."
    )
