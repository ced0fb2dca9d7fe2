"""What the page of classical profiles shows: selections of the measured numbers, and the predicates of its claims."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.claims import INCOMPARABLE, NOT, PARTLY, REPRODUCED, Predicate, Verdict
from cellbook.pages.classical.config import Config
from cellbook.pages.classical.measures import distances_of
from cellbook.runs import Run
from cellbook.study.rows import pick
from cellbook.study.show import percent, percents, plain

BENCHMARK = "ljosa2013"


def one(numbers: pd.DataFrame, **where: str | int) -> pd.Series:
    """The one row of the numbers in which every named column has the given value."""
    (line,) = pick(numbers, **where).itertuples(index=False)
    return pd.Series(line._asdict())


def labelled(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on accuracies of matching, with a label for the axis of a figure."""
    rows = verdicts[verdicts["protocol"].isin(list(metrics.PROTOCOLS))]
    return rows.assign(label=rows["source"].str.replace(" et al.", "") + ": " + rows["where"])


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Published beside measured, with the verdict; a silhouette is no proportion and is not written in per cent."""
    written = [plain if protocol == "silhouette" else percent for protocol in verdicts["protocol"]]
    measured = verdicts[["measured", "low", "high"]].itertuples(index=False)
    return pd.DataFrame(
        {
            "published in": verdicts["source"] + ", " + verdicts["where"],
            "setting": verdicts["setting"],
            "published": [write(value) for write, value in zip(written, verdicts["published"], strict=True)],
            "measured": [write(*line) for write, line in zip(written, measured, strict=True)],
            "verdict": verdicts["verdict"],
        }
    )


def reasons(verdicts: pd.DataFrame) -> str:
    """Why numbers are not comparable, as a Markdown list; empty if all are."""
    rows = verdicts[verdicts["verdict"] == INCOMPARABLE]
    lines = [f"- {', '.join(group['where'])}: {why}." for why, group in rows.groupby("why", sort=False)]
    return "\n".join(["Not comparable:", "", *lines]) if lines else ""


def grid(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC and NSCB of every setting under the benchmark's protocol, with its scaling and transform."""
    rows = pick(numbers, protocol=BENCHMARK, k=1)[["setting", "measure", "value", "low", "high", "correct", "scored"]]
    parts = rows["setting"].str.split(", ", n=1, expand=True)
    return rows.assign(scaling=parts[0], transform=parts[1].fillna("as scaled"))


def ridge_path(numbers: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The settings that whiten, with their scaling and ridge as columns."""
    rows = [
        pick(grid(numbers), setting=f"{scaling}, whitened {ridge:g}").assign(scaling=scaling, ridge=ridge)
        for scaling in config.scalings
        for ridge in config.ridges
    ]
    return pd.concat(rows, ignore_index=True)


def nested_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Hindsight beside the nested choice, and the optimism between them."""
    nested = pick(tables["numbers"], protocol="nested")
    best = str(tables["choices"]["best_in_hindsight"].iloc[0])
    values = nested.pivot_table(index="setting", columns="measure", values="value", sort=False)
    rows = [
        {"choice": f"{setting} ({best})" if setting == "best in hindsight" else setting}
        | {line["measure"]: percent(line["value"], line["low"], line["high"]) for _, line in group.iterrows()}
        for setting, group in nested.groupby("setting", sort=False)
    ]
    optimism = 100 * (values.loc["best in hindsight"] - values.loc["chosen without the compound"])
    rows.append({"choice": "optimism (points)"} | {name: f"{value:+.1f}" for name, value in optimism.items()})
    return pd.DataFrame(rows)


def choice_counts(choices: pd.DataFrame) -> pd.DataFrame:
    """How many compounds got which setting."""
    return choices["setting"].value_counts().rename("compounds").reset_index()


def protocol_table(numbers: pd.DataFrame, setting: str) -> pd.DataFrame:
    """One setting under the protocols of all papers."""
    rows = numbers[(numbers["setting"] == setting) & numbers["protocol"].isin(list(metrics.PROTOCOLS))]
    return pd.DataFrame(
        {
            "protocol": rows["protocol"],
            "measure": rows["measure"],
            "k": rows["k"],
            "accuracy": percents(rows),
            "right of scored": rows["correct"].astype(int).astype(str)
            + " of "
            + rows["scored"].astype(int).astype(str),
            "excluded": rows["excluded"].astype(int),
            "largest class": [percent(value) for value in rows["null"]],
        }
    )


def drop_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC, NSCB, and NSC with as many candidates removed at random in two ways, on the same queries."""
    rows = pick(numbers, protocol="drop")
    wide = rows.assign(text=percents(rows)).pivot_table(
        index="setting", columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index()


def leakage_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of naming the week of control wells, with both baselines as columns."""
    rows = pick(numbers, protocol="leakage")
    noise = pick(rows, setting="noise").set_index("measure")["value"]
    rows = rows[rows["setting"] != "noise"].rename(columns={"measure": "model"})
    return rows.assign(noise=rows["model"].map(noise), majority=rows["null"])[
        ["setting", "model", "value", "low", "high", "noise", "majority"]
    ]


def baseline_table(numbers: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Baselines beside the setting that the figures draw."""
    rows = pd.concat([pick(numbers, protocol="baseline"), pick(numbers, protocol=BENCHMARK, setting=setting)])
    wide = rows.assign(text=percents(rows)).pivot_table(
        index="setting", columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"setting": "profile"})


def confusion(run: Run, setting: str) -> pd.DataFrame:
    """Confusion matrix under NSCB of the benchmark's protocol."""
    protocol = metrics.PROTOCOLS[BENCHMARK]
    (measure,) = [m for m in protocol.measures if m.name == "NSCB"]
    distances = distances_of(run, protocol)[setting]
    return metrics.match(run.table("treatments"), distances=distances, **measure.arguments()).confusion


def similarity(run: Run, setting: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Cosine distances between treatments, and what the treatments are."""
    columns = ["Metadata_compound", "Metadata_concentration", "Metadata_moa", "Metadata_batch"]
    return distances_of(run, metrics.PROTOCOLS[BENCHMARK])[setting], run.table("treatments")[columns]


def takeaways(tables: dict[str, pd.DataFrame], setting: str) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    numbers, claims = tables["numbers"], tables["claims"]
    nsc, nscb = (one(numbers, protocol=BENCHMARK, setting=setting, measure=name) for name in ("NSC", "NSCB"))
    best = {
        name: one(numbers, protocol="nested", setting="best in hindsight", measure=name) for name in ("NSC", "NSCB")
    }
    fair = {
        name: one(numbers, protocol="nested", setting="chosen without the compound", measure=name)
        for name in ("NSC", "NSCB")
    }
    accuracies = tables["verdicts"][tables["verdicts"]["verdict"] != INCOMPARABLE]
    counts = ", ".join(f"{n} {name}" for name, n in accuracies["verdict"].value_counts().items()) or "none judged"
    held = int((claims["verdict"] == REPRODUCED).sum())
    forest = one(numbers, protocol="leakage", setting=setting, measure="forest")
    lines = [
        "```{admonition} Key takeaways",
        ":class: important",
        f"- Well means, scaled as the benchmark does and otherwise untouched (setting *{setting}*), reach "
        f"{percent(nsc['value'], nsc['low'], nsc['high'])} % NSC and "
        f"{percent(nscb['value'], nscb['low'], nscb['high'])} % NSCB.",
        f"- The setting with the best mean of NSC and NSCB reaches {percent(best['NSC']['value'])} % and "
        f"{percent(best['NSCB']['value'])} %; chosen without the compound that is scored, "
        f"{percent(fair['NSC']['value'])} % and {percent(fair['NSCB']['value'])} %.",
        f"- Of {len(accuracies)} published numbers that can be compared: {counts}.",
        f"- {held} of {len(claims)} claims are reproduced.",
        f"- A random forest names the week of DMSO wells on unseen plates in {percent(forest['value'])} % of cases; "
        f"the largest week would give {percent(forest['null'])} %.",
        "```",
    ]
    return "\n".join(lines)


# --- claims ---------------------------------------------------------------------------------------------------------


def points(line: pd.Series) -> str:
    """A difference of proportions in points, with its interval."""
    return f"{100 * line['value']:+.1f} points [{100 * line['low']:+.1f}, {100 * line['high']:+.1f}]"


def rising(numbers: pd.DataFrame, ending: str) -> tuple[int, int, pd.DataFrame]:
    """Paired differences whose name ends so: how many are above zero, how many surely, and all of them."""
    rows = numbers[(numbers["protocol"] == "paired") & numbers["setting"].str.endswith(ending)]
    return int((rows["value"] > 0).sum()), int((rows["low"] > 0).sum()), rows


def factors_help(numbers: pd.DataFrame) -> Verdict:
    """Ljosa et al.: 83 % to 94 %. Reproduced if the whole interval of the paired difference is above zero."""
    line = one(numbers, protocol="paired", setting="percentile, 20 factors - percentile", measure="NSC")
    verdict = REPRODUCED if line["low"] > 0 else PARTLY if line["value"] > 0 else NOT
    return Verdict(verdict, f"20 factors against none, percentile scaling, NSC: {points(line)}")


def batch_drop(numbers: pd.DataFrame) -> Verdict:
    """NSC above NSCB on the queries that both score: reproduced if so in all settings, with their intervals."""
    above, surely, rows = rising(numbers, ": NSC - NSCB")
    verdict = REPRODUCED if surely == len(rows) else PARTLY if above > len(rows) / 2 else NOT
    texts = [f"{line['setting'].split(':')[0]}: {points(line)}" for _, line in rows.iterrows()]
    return Verdict(verdict, f"it falls in {above} of {len(rows)} settings, surely in {surely}. {'; '.join(texts)}")


def drop_beyond_thinning(numbers: pd.DataFrame) -> Verdict:
    """NSCB below what random removal of as many right and wrong candidates leaves."""
    found = []
    for setting in pick(numbers, protocol="drop")["setting"].unique():
        nscb = one(numbers, protocol="drop", setting=setting, measure="NSCB")
        thinned = one(numbers, protocol="drop", setting=setting, measure="as many right and wrong")
        below = nscb["value"] < thinned["low"]
        found.append((below, f"{setting}: {percent(nscb['value'])} against {percents(thinned.to_frame().T)[0]}"))
    beyond = [text for below, text in found if below]
    verdict = REPRODUCED if len(beyond) == len(found) else PARTLY if beyond else NOT
    return Verdict(verdict, f"in {len(beyond)} of {len(found)} settings. {'; '.join(beyond)}")


def coral_neutral(numbers: pd.DataFrame) -> Verdict:
    """Reproduced if the paired differences lie within five points, intervals and all; partly if these hold zero."""
    lines = [
        one(numbers, protocol="paired", setting="percentile, 50 factors, CORAL - percentile, 50 factors", measure=name)
        for name in ("NSC", "NSCB")
    ]
    within = all(line["low"] >= -0.05 and line["high"] <= 0.05 for line in lines)
    around = all(line["low"] <= 0 <= line["high"] for line in lines)
    verdict = REPRODUCED if within else PARTLY if around else NOT
    return Verdict(verdict, "; ".join(f"{line['measure']}: {points(line)}" for line in lines))


def controls_carry_week(numbers: pd.DataFrame) -> Verdict:
    """Both classifiers are above their noise baseline, interval and all, on the features of Tabak et al."""
    table = leakage_table(numbers)
    rows = table[table["setting"] == "percentile, 50 factors"]
    above = (rows["low"] > rows["noise"]).sum()
    verdict = REPRODUCED if above == len(rows) else PARTLY if above else NOT
    texts = [
        f"{line['model']}: {percent(line['value'], line['low'], line['high'])}, noise {percent(line['noise'])}"
        for _, line in rows.iterrows()
    ]
    return Verdict(verdict, "; ".join(texts))


def whitening_needs_ridge(numbers: pd.DataFrame) -> Verdict:
    """A ridge of 1 against the smallest of the path: better for sure in all scalings and both measures."""
    rows = numbers[(numbers["protocol"] == "paired") & numbers["setting"].str.contains(": whitened 1 - ")]
    surely, above = int((rows["low"] > 0).sum()), int((rows["value"] > 0).sum())
    verdict = REPRODUCED if surely == len(rows) else PARTLY if above > len(rows) / 2 else NOT
    texts = [f"{line['setting'].split(':')[0]}, {line['measure']}: {points(line)}" for _, line in rows.iterrows()]
    return Verdict(verdict, f"better in {above} of {len(rows)}, surely in {surely}. {'; '.join(texts)}")


PREDICATES: dict[str, Predicate] = {
    "factors-help": factors_help,
    "batch-drop": batch_drop,
    "drop-beyond-thinning": drop_beyond_thinning,
    "coral-neutral": coral_neutral,
    "controls-carry-week": controls_carry_week,
    "whitening-needs-ridge": whitening_needs_ridge,
}
