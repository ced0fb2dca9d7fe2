"""What the page shows: tables, sentences and the data of figures, from the measured numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellbook.pages.comparison.config import (
    CHANGES,
    CHOICE,
    CLEAN,
    CORAL_CELLS,
    CORRECTIONS,
    GAINS,
    KNOWN,
    LEFT_OUT,
    MEASURED,
    NONE,
    NSC,
    NSCB,
    PAPERS,
    PRECISION,
    PREDICTS,
    RESTORED,
    SILHOUETTE,
    TRUTH,
    WDN,
    WEEK,
    Config,
)
from cellbook.pages.comparison.measures import copies
from cellbook.pages.comparison.ranking import not_dominated
from cellbook.runs import Run
from cellbook.study import measured, tables, words
from cellbook.study.rows import pick
from cellbook.study.show import SPACE, percent

SCREENS = {"simulated": "simulated cells with the plate map of BBBC021", "bbbc021-sample": "real crops of BBBC021"}
SHARES = (NSC, NSCB, *PRECISION.values(), WEEK)  # the others are correlations and silhouettes
COLUMNS = (*SHARES, SILHOUETTE, TRUTH, RESTORED)
KEPT = (NSC, NSCB, TRUTH)  # what is kept of biology, a panel each


# --- tables ---------------------------------------------------------------------------------------------------------


def text(line: pd.Series) -> str:
    """A share in per cent, or a correlation or silhouette as it is; with its interval."""
    if line["measure"] in SHARES or str(line["measure"]).startswith("significant"):
        return percent(line["value"], line["low"], line["high"])
    return f"{line['value']:.2f} [{line['low']:.2f}, {line['high']:.2f}]".replace(" ", SPACE)


def result_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Every measure of every representation under every correction, a row each; then what nobody could have."""
    lines = pick(numbers, protocol=MEASURED, measure=list(COLUMNS))
    lines = lines[lines["summary"].isin(CORRECTIONS) | lines["summary"].eq(CLEAN)]
    last = (lines["variant"] == KNOWN) | (lines["summary"] == CLEAN)
    lines = pd.concat([lines[~last], lines[last]]).rename(columns={"variant": "representation"})
    order = {name: place for place, name in enumerate(COLUMNS)}
    table = tables.wide(lines.rename(columns={"summary": "correction"}), ["representation", "correction"], text)
    chance = lines.groupby("measure")["null"].first().dropna()
    chance = chance[chance.index.isin(SHARES)].map(percent)
    table = pd.concat([table, pd.DataFrame([{"representation": "chance", **chance}])], ignore_index=True).fillna("–")
    return table[[*table.columns[:2], *sorted(table.columns[2:], key=order.__getitem__)]]


def significance_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Share of treatments that are told from random rankings (q below 0.05), by kind of retrieval, in per cent."""
    lines = numbers[(numbers["protocol"] == MEASURED) & numbers["measure"].str.startswith("significant")]
    lines = lines.assign(measure=lines["measure"].str.removeprefix("significant, "))
    lines = lines.rename(columns={"variant": "representation", "summary": "correction"})
    return tables.wide(lines, ["representation", "correction"], lambda line: percent(line["value"]))


def change_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What every correction changes, averaged over the representations that have it, a row a correction."""
    lines = pick(numbers, protocol=CHANGES, measure=list(COLUMNS))
    many = [f"{n:.0f}" for n in lines["representations"]]
    lines = lines.rename(columns={"summary": "correction"}).assign(of=many)
    return tables.wide(lines, ["correction", "of"], difference)


def difference(line: pd.Series) -> str:
    """A difference in points, or of correlations and silhouettes as it is."""
    if line["measure"] in SHARES:
        return words.points(line).replace(" points", "").replace(" ", SPACE)
    return f"{line['value']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]".replace(" ", SPACE)


def gain_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What training has gained over the same paper's network before its first step; empty without trained networks."""
    lines = pick(numbers, protocol=GAINS).rename(columns={"variant": "representation", "summary": "correction"})
    return tables.wide(lines, ["representation", "correction"], difference)


def choice_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What choices made without the scored compound are worth, beside the best in hindsight."""
    lines = pick(numbers, protocol=CHOICE)
    lines = lines[~lines["setting"].str.contains(" - ")].rename(columns={"setting": "choice among"})
    return tables.wide(lines, "choice among", words.accuracy)


def chosen_table(choices: pd.DataFrame) -> pd.DataFrame:
    """Which point was chosen how often."""
    names = {"among": "choice among", "variant": "representation", "summary": "correction"}
    return choices.rename(columns=names)


def predictor_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """How well every measure ranks as the truth does: measure, value, low, high, best; the best first."""
    lines = pick(numbers, protocol=PREDICTS)
    if lines.empty:
        return lines
    return lines.sort_values("value", ascending=False)[["measure", "value", "low", "high", "best", "points"]]


def truth_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Median R2 of the known parameters of cells of each kind, below 0 counted as 0; a row a representation."""
    lines = pick(numbers, protocol="truth")
    if lines.empty:
        return pd.DataFrame()
    lines = lines.assign(value=lines["value"].clip(lower=0))
    medians = lines.pivot_table(index="variant", columns="kind", values="value", aggfunc="median", sort=False)
    columns = [name for name in ("cell", "treatment", "nuisance") if name in medians]
    return medians[columns].map("{:.2f}".format).rename_axis("representation").reset_index()


def compared_table(run: Run) -> pd.DataFrame:
    """What is compared, and where it comes from; of several trainings of a network the first."""
    table = run.table("compared")
    trained = table.groupby("variant")["training"].transform("size").where(table["training"] != "", 0)
    table = table.assign(trainings=trained).drop_duplicates("variant")
    return pd.DataFrame(
        {
            "representation": table["variant"],
            "kind": table["kind"],
            "trainings": [f"{n}" if n else "–" for n in table["trainings"]],
            "run of its first training": table["training"].where(table["training"] != "", "–"),
            "trained on": [name or "–" for name in table["device"]],
            "seconds of training": ["–" if np.isnan(t) else f"{t:,.0f}" for t in table["trained"]],
            "seconds of encoding": table["seconds"].map("{:,.0f}".format),
            "also without weeks": np.where(table["clean"], "yes", "no"),
        }
    )


def collapse(run: Run) -> str:
    """How far from a collapse the embeddings of the network of no paper have ended; empty without it."""
    ends = ", ".join(f"{value:.2f}" for value in measured.optional(run, "trainings").get("deviation", []))
    if not ends:
        return ""
    return (
        f"The embeddings of VICReg have ended with a mean standard deviation of {ends}: 1 is asked for, 0 is a "
        "collapse, and 0.25 is what cells give that have nothing in common with their partners."
    )


def left_out_table(run: Run) -> pd.DataFrame:
    """Corrections that could not be made, and why."""
    table = measured.optional(run, "left_out")
    names = {"variant": "representation", "summary": "correction"}
    return table[[*names, "why"]].rename(columns=names) if len(table) else table


def map_table(run: Run) -> pd.DataFrame:
    """How many steps the maps of WDN took, and why no more, of those that took any."""
    table = measured.optional(run, "maps")
    if table.empty:
        return table
    table = table[table["steps"] > 0]
    table = table.assign(training=table["repeat"] + 1)
    return table[["variant", "training", "steps", "stopped"]].rename(columns={"variant": "representation"})


def without_maps(run: Run) -> str:
    """How many maps of WDN took no step, and what follows: sentences; empty where WDN was not made."""
    table = measured.optional(run, "maps")
    if table.empty:
        return ""
    still = table["steps"] == 0
    most = table.groupby("variant")["steps"].max()
    same = (most == 0).sum()
    where = f"{same} of {len(most)} representations" if same < len(most) else f"all {same} representations"
    left = (
        f" On {where} no training took one: there WDN is its start, *{CORAL_CELLS}*, in every digit, and "
        "stands in no table, figure, ranking or choice of this page."
        if same
        else ""
    )
    why = "; ".join(f"{reason}: {n}" for reason, n in table.loc[still, "stopped"].value_counts().items())
    return f"The maps of WDN took no step in {still.sum()} of {len(table)} trainings{f' ({why})' if why else ''}.{left}"


def copied(run: Run) -> str:
    """Where WDN stands in no ranking, a sentence beside it; empty if everywhere it differs from its start."""
    same = len(copies(run))
    if not same:
        return ""
    of = measured.optional(run, "maps")["variant"].nunique()
    if same == of:
        return f"*{WDN}* is its start, *{CORAL_CELLS}*, on all {of} representations, and is not ranked a second time."
    return (
        f"*{WDN}* differs from *{CORAL_CELLS}*, its start, on {of - same} of {of} representations and is left out on "
        "the others, so that it is not ranked among the corrections."
    )


def missing_table(run: Run) -> pd.DataFrame:
    """What is not there, and the command that would make it."""
    if "missing.parquet" not in run.products():
        return pd.DataFrame()
    table = run.table("missing")
    names = table["representation"].replace(PAPERS)
    return pd.DataFrame({"representation": names, "why it is not compared": table["why"], "command": table["command"]})


def on_purpose(config: Config) -> str:
    """Which trainings of the papers are left out on purpose, by name, as a sentence."""
    of = [f"{PAPERS[paper]} ({'; '.join(LEFT_OUT[paper])})" for paper, _ in config.pages if paper in LEFT_OUT]
    return f"Left out on purpose: {', '.join(of)}." if of else ""


def printed_table(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Published values, and how they differ from what is measured here."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in entries:
        row = found.setdefault((entry["source"], entry["where"]), {"profile": entry["setting"]})
        row[entry["measure"]] = f"{100 * entry['value']:.{max(0, entry['digits'] - 2)}f}"
        row["what differs"] = entry["not_comparable"]
    rows = [{"source": source, "where": where, **row} for (source, where), row in found.items()]
    columns = ["source", "where", "profile", NSC, NSCB, "what differs"]
    return pd.DataFrame(rows, columns=columns).fillna("–")


# --- data of figures ------------------------------------------------------------------------------------------------


def kept_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Biology kept against week left, a row a point and measure of biology.

    Columns representation, correction, measure, value, low, high (what is kept), week, week_low, week_high (of control
    wells the share whose nearest is of the same week), chance, control (their kind), front (whether no other point is
    better in both).
    """
    lines = pick(numbers, protocol=MEASURED)
    lines = lines[(lines["variant"] != KNOWN) & lines["summary"].isin(CORRECTIONS)]
    week = pick(lines, measure=WEEK)[["variant", "summary", "value", "low", "high", "null", "kind"]]
    week.columns = ["variant", "summary", "week", "week_low", "week_high", "chance", "control"]
    kept = pick(lines, measure=list(KEPT))[["variant", "summary", "measure", "value", "low", "high"]]
    rows = kept.merge(week).rename(columns={"variant": "representation", "summary": "correction"})
    rows["front"] = False
    for _, part in rows.groupby("measure"):
        rows.loc[part.index, "front"] = not_dominated(part["week"], part["value"])
    return rows


def bounds(numbers: pd.DataFrame) -> dict[str, float]:
    """The measures of the known truth itself, as if it were a profile: as much as these cells can tell."""
    lines = pick(numbers, protocol=MEASURED, variant=KNOWN, summary=NONE, measure=list(KEPT))
    return dict(zip(lines["measure"], lines["value"], strict=True))


def marks(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Published values as marks: measure, label, value."""
    rows = [(entry["measure"], entry["setting"], entry["value"]) for entry in entries]
    return pd.DataFrame(rows, columns=["measure", "label", "value"])


def rank_rows(ranks: pd.DataFrame) -> pd.DataFrame:
    """Probabilities of ranks of representations and of corrections, the best first."""
    rows = ranks[ranks["of"] != "point"]
    return rows.sort_values(
        ["of", "measure", "value"], ascending=[False, True, False], kind="stable", ignore_index=True
    )


def scatter_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC against agreement with the truth, a row a point; empty where no truth is known."""
    lines = pick(numbers, protocol=MEASURED, measure=[NSC, TRUTH])
    lines = lines[(lines["variant"] != KNOWN) & lines["summary"].isin(CORRECTIONS)]
    wide = lines.pivot_table(index=["variant", "summary"], columns="measure", values="value", sort=False).reset_index()
    wide = wide.rename(columns={"variant": "representation", "summary": "correction"}).rename_axis(columns=None)
    return wide if TRUTH in wide else wide.iloc[:0]


# --- sentences ------------------------------------------------------------------------------------------------------


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: on which cells, with what, as Markdown."""
    size, compared = run.table("size").iloc[0], run.table("compared")
    per_treatment = (size["cells"] - size["control_cells"]) / size["treatments"]
    screen = SCREENS.get(config.screen, f"the cells of {config.screen}")
    missing, several = missing_table(run), compared.groupby("variant").size().max()
    lines = [
        f"Compared on {size['cells']:,} {screen}, about {per_treatment:.0f} a treatment: "
        f"{compared['variant'].nunique()} representations, each made from the same cells.",
        f"Each network is the mean of {several} training{'s' if several > 1 else ''} at most, and another would land "
        "elsewhere; the intervals here are over compounds and plates alone.",
    ]
    if len(missing):
        lines.append(f"Not there today: {len(missing)} more, see the end of the page for the commands.")
    return words.box("One screen, and what is in the store", lines, "warning")


def decision_box(decisions: pd.DataFrame) -> str:
    """The sentences of the page as a list."""
    pairs = zip(decisions["situation"], decisions["sentence"], strict=True)
    return "\n".join(f"- **{situation}.** {sentence}" for situation, sentence in pairs)


def takeaways(decisions: pd.DataFrame) -> str:
    """The sentences of the first page in a box."""
    return words.box("Key takeaways", [f"- {text}" for text in decisions.loc[decisions["first"], "sentence"]])
