"""What the page shows: selections of the measured numbers as tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.leaking import week_protocol
from cellbook.pages.tabak2020.measures import (
    BOOTSTRAP,
    DAMAGE,
    PAIRED,
    POOLED,
    SILHOUETTE,
    STOPPING,
)
from cellbook.pages.tabak2020.predicates import line
from cellbook.pages.tabak2020.sources import ENGINEERED
from cellbook.study.rows import pick
from cellbook.study.show import percent, plain

SPACE = "\N{NO-BREAK SPACE}"
WDN = tuple(c.CROSS_VALIDATED.values())
SHOWN = (c.UNCORRECTED, c.CORAL, *WDN)  # the methods of the paper
BEYOND = (c.TVN, c.CORAL_MEANS, c.CENTRED, c.ROBUST, c.HARMONY, c.LAST, *c.HINDSIGHT.values())
BEST = c.HINDSIGHT["silhouette"]
FEWEST_DRAWS = 20  # resamples behind a standard error that is shown


def base(sources: pd.DataFrame, source: str) -> str:
    """What the paper calls the uncorrected features of such a source."""
    family = sources.set_index("source").loc[source, "family"]
    return "Preprocessed" if family == ENGINEERED else "TVN"


def spread(value: pd.Series) -> str:
    """Mean ± standard deviation over trainings, in per cent; (standard error) of resamples, else [interval].

    Of fewer than `FEWEST_DRAWS` resamples no standard error is shown.
    """
    text = percent(value["value"])
    if value["trainings"] > 1 and value["sd"] > 0:
        text += f" ± {100 * value['sd']:.1f}"
    if value["draws"] > 0:
        return text.replace(" ", SPACE) + error(value, 100, 1)
    if np.isfinite(value["low"]):
        text += f" [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
    return text.replace(" ", SPACE)


def error(value: pd.Series, scale: float, digits: int) -> str:
    """The standard error of enough resamples in parentheses, or nothing."""
    known = value["draws"] >= FEWEST_DRAWS and np.isfinite(value["se"])
    return f"{SPACE}({scale * value['se']:.{digits}f})" if known else ""


def accuracy_table(
    numbers: pd.DataFrame, sources: pd.DataFrame, source: str, measure: str, printed: pd.DataFrame
) -> pd.DataFrame:
    """Tables 1, 2, 4 and 5: k = 1 to 4 in columns; the paper's row under ours, for all rows and for resamples."""
    kinds = {POOLED: f"all {sources.set_index('source').loc[source, 'unit']}", BOOTSTRAP: "resampled"}
    rows = []
    for method in SHOWN:
        for protocol, kind in kinds.items():
            mine = pick(numbers, source=source, method=method, protocol=protocol, measure=measure)
            if mine.empty:
                continue
            named = {"method": base(sources, source) if method == c.UNCORRECTED else method, "type": kind}
            cells = {f"{k}-NN": spread(line(mine, k=k)) for k in (1, 2, 3, 4)}
            rows.append({**named, "from": "here", **cells})
            theirs = pick(printed, setting=f"{source}: {method}", protocol=protocol, measure=measure)
            if len(theirs):
                at = theirs.set_index("k")
                cells = {f"{k}-NN": published(at.loc[k]) for k in at.index}
                rows.append({**named, "from": "paper", **cells})
    return pd.DataFrame(rows)


def published(verdict: pd.Series) -> str:
    """A printed number with the standard error that stands beside it in print."""
    _, _, printed = str(verdict["where"]).partition(" (± ")
    text = percent(verdict["published"])
    return f"{text} ({printed.rstrip(')')})".replace(" ", SPACE) if printed else text


def batch_table(numbers: pd.DataFrame, sources: pd.DataFrame, source: str, printed: pd.DataFrame) -> pd.DataFrame:
    """Tables 3 and 6: silhouette and week named, methods in columns, the paper's row under ours."""
    methods = {BEST: "WDN", c.CORAL: "CORAL", c.UNCORRECTED: base(sources, source)}
    wanted = [
        ("silhouette", SILHOUETTE, "MOA"),
        ("silhouette, resampled", BOOTSTRAP, "silhouette"),
        ("week, logistic regression", week_protocol(c.ROWS), "logistic"),
        ("week, logistic regression, resampled", "week, bootstrap", "logistic"),
        ("week, random forest", week_protocol(c.ROWS), "forest"),
        ("week, random forest, resampled", "week, bootstrap", "forest"),
    ]
    rows = []
    for label, protocol, measure in wanted:
        ours, theirs = {"": label, "from": "here"}, {"": label, "from": "paper"}
        for method, column in methods.items():
            # The silhouette of resamples is the best of all steps, whatever the rule.
            method = c.CROSS_VALIDATED["silhouette"] if (method, protocol) == (BEST, BOOTSTRAP) else method
            found = line(numbers, source=source, method=method, protocol=protocol, measure=measure)
            ours[column] = number(found, measure) if found is not None else "–"
            print_ = line(printed, setting=f"{source}: {method}", protocol=protocol, measure=measure)
            theirs[column] = "–" if print_ is None else published_plain(print_, measure)
        rows.append(ours)
        if any(theirs[column] != "–" for column in methods.values()):
            rows.append(theirs)
    return pd.DataFrame(rows)


def number(found: pd.Series, measure: str) -> str:
    """A silhouette as it is, an accuracy in per cent; with what is known of its uncertainty."""
    if measure in ("logistic", "forest"):
        return spread(found)
    if found["draws"] > 0:
        return plain(found["value"]) + error(found, 1, 3)
    return plain(found["value"], found["low"], found["high"])


def published_plain(verdict: pd.Series, measure: str) -> str:
    """A printed silhouette or accuracy with its standard error."""
    if measure in ("logistic", "forest"):
        return published(verdict)
    _, _, printed = str(verdict["where"]).partition(" (± ")
    return f"{verdict['published']:.3f}" + (f" ({printed.rstrip(')')})".replace(" ", SPACE) if printed else "")


def beyond_table(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Corrections that the paper does not have, and steps that nobody could have chosen: 1-NN and the week."""
    rows = []
    for source in mains(sources):
        for method in (*SHOWN, *BEYOND):
            mine = pick(numbers, source=source, method=method)
            found = [line(mine, protocol=POOLED, measure=measure, k=1) for measure in ("NSC", "NSCB")]
            if found[0] is None or found[1] is None:
                continue
            week = line(mine, protocol=week_protocol(c.ROWS), measure="logistic")
            unseen = line(mine, protocol=week_protocol(c.UNSEEN), measure="logistic")
            shape = line(mine, protocol=SILHOUETTE, measure="MOA")
            rows.append(
                {
                    "profiles": source,
                    "method": method,
                    "NSC": spread(found[0]),
                    "NSCB": spread(found[1]),
                    "silhouette": "–" if shape is None else f"{shape['value']:.3f}",
                    "week": "–" if week is None else percent(week["value"]),
                    "week, unseen plates": "–" if unseen is None else percent(unseen["value"]),
                }
            )
    return pd.DataFrame(rows)


def mains(sources: pd.DataFrame) -> list[str]:
    """Names of the sources that are shown, without further strengths of the week effect."""
    return sources[sources["main"] == 1]["source"].tolist()


def converged_table(converged: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """Uncorrected wells whose factor analysis stops earlier or later: accuracy for k = 1 to 4, and silhouette."""
    units = sources.set_index("source")["features"]
    rows = []
    for (source, tolerance), part in converged.groupby(["source", "tolerance"], sort=False):
        line_ = {"profiles": source, "factors": units[source], "stops at a rise of": f"{tolerance:g}"}
        for measure, scores in part.groupby("measure", sort=False):
            for _, score in scores.sort_values("k").iterrows():
                label = f"{measure}, {score['k']:.0f}-NN" if score["k"] > 0 else str(measure)
                line_[label] = percent(score["value"]) if score["k"] > 0 else plain(score["value"])
        rows.append(line_)
    return pd.DataFrame(rows)


def paired_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Differences between methods, mean over k, in points with intervals over compounds."""
    rows = pick(numbers, protocol=PAIRED)
    rows = rows[rows["measure"].isin(["NSC", "NSCB"])]
    texts = [f"{100 * r['value']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]" for _, r in rows.iterrows()]
    wide = rows.assign(text=[text.replace(" ", SPACE) for text in texts]).pivot_table(
        index=["source", "method"], columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"source": "profiles", "method": "difference"})


def source_table(sources: pd.DataFrame) -> pd.DataFrame:
    """What each kind of profile is made of."""
    shown = sources[sources["main"] == 1]
    return pd.DataFrame(
        {
            "profiles": shown["source"],
            "rows": [f"{n:,} {unit}" for n, unit in zip(shown["rows"], shown["unit"], strict=True)],
            "of DMSO": [f"{n:,}" for n in shown["controls"]],
            "fewest in a week": shown["fewest_controls_of_a_week"],
            "features": shown["features"],
            "plates": shown["plates"],
            "treatments": shown["treatments"],
            "map steps": [f"{n:,}" for n in shown["map_steps"]],
        }
    )


def damage_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What is left of the controls, and how far the maps went, at the best silhouette and at the last step."""
    rows = pick(numbers, protocol=DAMAGE)
    few = {"variance": "variance left", "gap": "gap between weeks", "change": "mean change of a map"}
    rows = rows[rows["measure"].isin(list(few))].assign(measure=rows["measure"].map(few))
    texts = [f"{r['value']:.3f}" + (f" ± {r['sd']:.3f}" if r["sd"] > 0 else "") for _, r in rows.iterrows()]
    wide = rows.assign(text=[text.replace(" ", SPACE) for text in texts]).pivot_table(
        index=["source", "method"], columns="measure", values="text", aggfunc="first", sort=False
    )
    return wide[list(few.values())].reset_index().rename(columns={"source": "profiles"})


def stopping_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Steps chosen with all compounds, and how often the same is chosen without the compound."""
    rows = pick(numbers, protocol=STOPPING)
    step, same = rows[rows["measure"] == "step"], rows[rows["measure"] != "step"]
    steps = [f"{r['value']:.0f}" + (f" ± {r['sd']:.0f}" if r["sd"] > 0 else "") for _, r in step.iterrows()]
    return pd.DataFrame(
        {
            "profiles": step["source"].to_numpy(),
            "rule": step["method"].str.removeprefix("WDN, ").str.removesuffix(" in hindsight").to_numpy(),
            "map step, all compounds": [text.replace(" ", SPACE) for text in steps],
            "the same without the compound (%)": [percent(value) for value in same["value"]],
        }
    )


def variant_table(variants: pd.DataFrame) -> pd.DataFrame:
    """Departures from the paper's method: chosen without the compound, and what is left at the last step."""
    rows = []
    for variant, part in variants.groupby("variant", sort=False):
        scores = part[part["at"] == "knn"].groupby("measure")["value"].mean()
        last = part[part["at"] == "last"].set_index("measure")["value"]
        best = part[(part["at"] == "best") & (part["measure"] == "silhouette")]["value"].iloc[0]
        rows.append(
            {
                "variant": variant,
                "NSC": percent(scores["NSC"]),
                "NSCB": percent(scores["NSCB"]),
                "best silhouette": f"{best:.3f}",
                "silhouette at the end": f"{last['silhouette']:.3f}",
                "gap at the end": f"{last['gap']:.3f}",
                "variance at the end": f"{last['variance']:.3f}",
                "seconds": f"{part['seconds'].iloc[0]:.0f}",
            }
        )
    return pd.DataFrame(rows)


def bug_table(bugs: pd.DataFrame) -> pd.DataFrame:
    """What every fault of the published code does to profiles, at step 0 and at the last step."""
    few = {"gap": "gap", "gap in training": "gap under the trained maps", "estimate": "critics' distance"}
    few |= {"variance": "variance", "change": "change of a map"}
    rows = []
    for variant, part in bugs.groupby("variant", sort=False):
        last = part[part["step"] == part["step"].max()]
        means = last.groupby("measure")["value"].mean()
        line_ = {"variant": variant} | {
            label: f"{means[measure]:.3f}" if np.isfinite(means.get(measure, np.nan)) else "–"
            for measure, label in few.items()
        }
        rows.append(line_ | {f"{name}, mean over k": percent(means[name]) for name in ("NSC", "NSCB")})
    start = bugs[(bugs["step"] == 0) & (bugs["variant"] == bugs["variant"].iloc[0])].groupby("measure")["value"].mean()
    before = {"variant": "no correction"} | {
        label: f"{start[measure]:.3f}" if measure in ("gap", "variance", "change") else "–"
        for measure, label in few.items()
    }
    return pd.DataFrame([before | {f"{name}, mean over k": percent(start[name]) for name in ("NSC", "NSCB")}, *rows])


def week_table(numbers: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """How often the week is named, by four ways of asking, before and after WDN."""
    asked = {c.ROWS: "as in the paper", c.PLATES: "plates held out", c.UNSEEN: "plates that no map has seen"}
    asked["positive control"] = "positive control, plates held out"
    rows = []
    for source in mains(sources):
        for how, words in asked.items():
            mine = pick(numbers, source=source, protocol=week_protocol(how), measure="logistic")
            if mine.empty:
                continue
            found = {name: line(mine, method=name) for name in (c.UNCORRECTED, c.CORAL, c.CENTRED, BEST, c.LAST)}
            noise = line(mine, method="noise")
            cells = {name: "–" if value is None else spread(value) for name, value in found.items()}
            rows.append({"profiles": source, "asked": words, **cells, "noise": percent(noise["value"])})
    return pd.DataFrame(rows)


def evidence_table(claims: pd.DataFrame) -> pd.DataFrame:
    """The evidence of every claim, one row a source with its own verdict; one row where a claim was not judged."""
    rows = []
    for claim in claims.itertuples():
        for part in str(claim.evidence).split("; "):
            found = re.fullmatch(r"(?P<source>.+?) \((?P<own>[^()]+)\): (?P<text>.+)", part)
            source, own, text = found.group("source", "own", "text") if found else ("–", claim.verdict, part)
            rows.append({"claim": claim.sentence, "profiles": source, "verdict": own, "evidence": text})
    table = pd.DataFrame(rows)
    return table.assign(claim=table["claim"].where(~table["claim"].duplicated(), ""))


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Published beside measured, with the verdict and its reason."""
    written = [plain if "silhouette" in f"{r.protocol} {r.measure}" else percent for r in verdicts.itertuples()]
    measured = verdicts[["measured", "low", "high"]].itertuples(index=False)
    return pd.DataFrame(
        {
            "printed in": verdicts["where"],
            "published": [write(value) for write, value in zip(written, verdicts["published"], strict=True)],
            "measured": [write(*values) for write, values in zip(written, measured, strict=True)],
            "verdict": verdicts["verdict"],
            "why": verdicts["why"],
        }
    )
