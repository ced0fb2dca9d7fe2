"""What the page of classical profiles shows: tables, the data of its figures, and its key takeaways."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellbook import metrics
from cellbook.claims import INCOMPARABLE
from cellbook.pages.classical.config import Config
from cellbook.pages.classical.measures import BENCHMARK, HINDSIGHT, NESTED, distances_of
from cellbook.runs import Run
from cellbook.study import tables as shared
from cellbook.study import words
from cellbook.study.rows import one, pick
from cellbook.study.show import percent
from cellbook.study.words import accuracy, share


def labelled(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on accuracies of matching, with a label for the axis of a figure."""
    rows = pick(verdicts, protocol=list(metrics.PROTOCOLS))
    return rows.assign(label=rows["source"].str.replace(" et al.", "") + ": " + rows["where"])


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Published beside measured, with the setting, the verdict and its reason."""
    table = shared.verdict_table(verdicts.assign(where=verdicts["source"] + ", " + verdicts["where"]))
    table.insert(1, "setting", verdicts["setting"])
    return table


def grid(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC and NSCB of every setting under the benchmark's protocol, with its scaling and transform."""
    columns = ["setting", "measure", "value", "low", "high", "correct", "scored", "scaling", "transform"]
    return pick(numbers, protocol=BENCHMARK.name)[columns]


def ridge_path(numbers: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The settings that whiten, with their scaling and ridge as columns."""
    ridges = {f"whitened {ridge:g}": ridge for ridge in config.ridges}
    rows = grid(numbers)
    rows = rows.assign(ridge=rows["transform"].map(ridges))
    return rows[rows["ridge"].notna()].reset_index(drop=True)


def nested_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Hindsight beside the nested choice, and the optimism between them."""
    nested = pick(tables["numbers"], protocol="nested")
    best = tables["choices"]["best_in_hindsight"].iloc[0]
    values = nested.pivot_table(index="setting", columns="measure", values="value")
    optimism = {name: f"{100 * gap:+.1f}" for name, gap in (values.loc[HINDSIGHT] - values.loc[NESTED]).items()}
    table = shared.wide(nested, "setting", accuracy).rename(columns={"setting": "choice"})
    table["choice"] = table["choice"].replace(HINDSIGHT, f"{HINDSIGHT} ({best})")
    return pd.concat([table, pd.DataFrame([{"choice": "optimism (points)", **optimism}])], ignore_index=True)


def choice_counts(choices: pd.DataFrame) -> pd.DataFrame:
    """How many compounds got which setting."""
    return choices["setting"].value_counts().rename("compounds").reset_index()


def protocol_table(numbers: pd.DataFrame, setting: str) -> pd.DataFrame:
    """One setting under the protocols of all papers."""
    rows = pick(numbers, setting=setting, protocol=list(metrics.PROTOCOLS))
    of = [f"{line.correct:.0f} of {line.scored:.0f}" for line in rows.itertuples()]
    return pd.DataFrame(
        {
            "protocol": rows["protocol"],
            "measure": rows["measure"],
            "k": rows["k"],
            "accuracy": [accuracy(line) for _, line in rows.iterrows()],
            "right of scored": of,
            "excluded": rows["excluded"].astype(int),
            "largest class": [percent(value) for value in rows["null"]],
        }
    )


def drop_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """NSC, NSCB, and NSC with as many candidates removed at random in two ways, on the same queries."""
    return shared.wide(pick(numbers, protocol="drop"), "setting", accuracy)


def leakage_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of naming the week of control wells, with both baselines as columns."""
    rows = pick(numbers, protocol="leakage")
    noise = pick(rows, setting="noise").set_index("measure")["value"]
    rows = rows[rows["setting"] != "noise"].rename(columns={"measure": "model", "null": "majority"})
    rows = rows.assign(noise=rows["model"].map(noise))
    return rows[["setting", "model", "value", "low", "high", "noise", "majority"]]


def baseline_table(numbers: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Baselines beside the setting that the figures draw."""
    rows = pd.concat([pick(numbers, protocol="baseline"), pick(numbers, protocol=BENCHMARK.name, setting=setting)])
    return shared.wide(rows, "setting", accuracy).rename(columns={"setting": "profile"})


def confusion(run: Run, setting: str) -> pd.DataFrame:
    """Confusion matrix under NSCB of the benchmark's protocol."""
    (measure,) = [m for m in BENCHMARK.measures if m.name == "NSCB"]
    square = distances_of(run, BENCHMARK)[setting]
    return metrics.match(run.table("treatments"), distances=square, **measure.arguments()).confusion


def similarity(run: Run, setting: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Cosine distances between treatments, and what the treatments are."""
    columns = ["Metadata_compound", "Metadata_concentration", "Metadata_moa", "Metadata_batch"]
    return distances_of(run, BENCHMARK)[setting], run.table("treatments")[columns]


def takeaways(tables: dict[str, pd.DataFrame], setting: str) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    numbers, verdicts = tables["numbers"], tables["verdicts"]

    def both(**where: str) -> list[str]:
        return [share(one(numbers, measure=name, **where)) for name in ("NSC", "NSCB")]

    here = both(protocol=BENCHMARK.name, setting=setting)
    best, fair = (both(protocol="nested", setting=name) for name in (HINDSIGHT, NESTED))
    compared = verdicts[verdicts["verdict"] != INCOMPARABLE]["verdict"]
    counts = ", ".join(f"{n} {name}" for name, n in compared.value_counts().items()) or "none judged"
    forest = one(numbers, protocol="leakage", setting=setting, measure="forest")
    lines = [
        f"Well means, scaled as the benchmark does and otherwise untouched (setting *{setting}*), reach "
        f"{here[0]} % NSC and {here[1]} % NSCB.",
        f"The setting with the best mean of NSC and NSCB reaches {best[0]} % and {best[1]} %; chosen without the "
        f"compound that is scored, {fair[0]} % and {fair[1]} %.",
        f"Of {len(compared)} published numbers that can be compared: {counts}.",
        f"A random forest names the week of DMSO wells on unseen plates in {share(forest)} % of cases (setting "
        f"*{setting}*); the largest week would give {percent(forest['null'])} %.",
    ]
    return words.takeaways(lines, tables["claims"])
