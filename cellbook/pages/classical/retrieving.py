"""How well the profiles of the page retrieve replicates and mechanisms."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cellbook import metrics
from cellbook.pages.classical.config import Config
from cellbook.runs import Run
from cellbook.study.rows import Draws, Votes, average, counts


def retrieval(run: Run, config: Config) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Retrieval of replicates and mechanisms: one row a question and mechanism, and the numbers over all."""
    setting, wells, treatments = config.drawn, run.table("drawn-wells"), run.table("drawn-treatments")
    draws = {"null_size": config.null_size, "seed": config.seed}
    active = metrics.activity(wells, **draws).merge(
        treatments[["Metadata_compound", "Metadata_concentration", "Metadata_moa"]]
    )
    questions = {
        "activity": active.groupby("Metadata_moa", as_index=False).agg(
            value=("mean_average_precision", "mean"),
            positives=("positives", "sum"),
            pairs=("pairs", "sum"),
            significant=("q_value", lambda q: (q < 0.05).mean()),
            treatments=("scored", lambda scored: (scored > 0).sum()),
        ),
        "consistency": by_mechanism(metrics.consistency(treatments, **draws)),
        "consistency across weeks": by_mechanism(metrics.consistency_across_batches(treatments, **draws)),
    }
    table = pd.concat([part.assign(question=name) for name, part in questions.items()], ignore_index=True)
    table["null"] = table["positives"] / table["pairs"].where(table["pairs"] > 0)
    share = (table["significant"] * table["treatments"]).round().fillna(0).astype(int).astype(str)
    whole = table["significant"].map({1.0: "significant", 0.0: "not significant"})
    table["text"] = (share + " of " + table["treatments"].astype(str)).where(table["question"] == "activity", whole)
    table.loc[table["treatments"] == 0, "text"] = "not scorable"
    columns = ["question", "moa", "value", "null", "significant", "treatments", "text"]
    table = table.rename(columns={"Metadata_moa": "moa"})[columns]

    found = active[active["scored"] > 0]
    replicating = metrics.percent_replicating(wells, **draws)
    several = replicating.dropna(subset="replicates")
    shares = {
        "share of active treatments": (found["q_value"] < 0.05, found, len(active) - len(found)),
        "percent replicating": (several["replicates"].astype(int), several, len(replicating) - len(several)),
    }
    lines = []
    for measure, (right, of, excluded) in shares.items():
        votes = [Votes.of(right, of["Metadata_compound"])]
        more = counts(votes) | {"excluded": excluded}
        lines.append(average(setting, "retrieval", measure, votes, Draws(config.resamples, config.seed), **more))
    return table, lines


def by_mechanism(table: pd.DataFrame) -> pd.DataFrame:
    """Retrieval of one question, one row a mechanism; a mechanism is significant or not as a whole."""
    return table.assign(
        value=table["mean_average_precision"],
        significant=(table["q_value"] < 0.05).astype(float).where(table["scored"] > 0),
        treatments=table["scored"],
    )
