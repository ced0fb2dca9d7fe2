"""What the page shows: tables, sentences and the data of figures, from the measured numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cellbook.pages.glastonbury2018 import measures
from cellbook.pages.glastonbury2018.config import (
    ADVERSARY,
    BASELINES,
    BEFORE,
    BOUNDED,
    CONDITIONAL,
    DEEP,
    FIFTY,
    FURTHER,
    GAMES,
    ONE,
    PRESETS,
    PROTOCOL,
    REST,
    SEES,
    Config,
    base,
    games,
    name_of,
    trainings,
)
from cellbook.pages.glastonbury2018.corrected import CORRECTIONS, PLAIN, WDN
from cellbook.pages.glastonbury2018.making import load
from cellbook.pages.glastonbury2018.measures import (
    AGREEMENT,
    IMAGES,
    LEFT,
    MOA,
    NEAREST,
    OURS,
    PROBE,
    REACHED,
    RESTORED,
    TIES,
    TRUE,
    VOTING,
    WEEK,
)
from cellbook.pages.glastonbury2018.probes import ALL, NEGATIVE, POSITIVE
from cellbook.runs import Run
from cellbook.study import course, measured, tables, words
from cellbook.study.pictures import with_originals
from cellbook.study.rows import for_a_figure, pick
from cellbook.study.show import percent, plain

MEASURES = tuple(one.name for one in (*OURS.measures, *NEAREST.measures))
MADE_ONCE = tuple(name_of(lam, game) for game, lam in FURTHER)
VARIANTS = (BEFORE, ONE, FIFTY, CONDITIONAL, *MADE_ONCE, *BASELINES)
MAIN = (BEFORE, ONE, FIFTY, CONDITIONAL, name_of(0.0, DEEP), name_of(50.0, DEEP), name_of(50.0, REST))
READ = 0.05  # of R2; what no code reads better is not drawn
SCREENS = {"simulated": "simulated cells with the plate map of BBBC021", "bbbc021-sample": "real crops of BBBC021"}
CORRECTED, UNTRAINED, BOUNDED_GAME = "correction", "no game", "bounded game"
GAME_ORDER = {game: place for place, game in enumerate(GAMES)}
WAYS = {  # how a profile came about, by the game of its training
    ADVERSARY: "adversary",
    SEES: "adversary that sees the treatment",
    **dict.fromkeys(BOUNDED, BOUNDED_GAME),
    REST: "adversary at rest",
    DEEP: "deep encoder",
}


# --- tables ---------------------------------------------------------------------------------------------------------


def result_table(numbers: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The paper's table, here and in print: accuracies with what they are times the largest class."""
    printed = pick(verdicts, setting="largest class").set_index("measure")["published"] if len(verdicts) else {}
    rows = [
        ({"codes": profile_name(name, summary)}, {"setting": f"{name}, {summary}"})
        for name in VARIANTS
        for summary in of_variant(name)
    ]
    rows.append(({"codes": "largest class"}, {"setting": "largest class"}))
    columns: dict[str, dict[str, object]] = {name: {"measure": name} for name in MEASURES}

    def theirs(verdict: pd.Series) -> str:
        return words.printed(verdict) + times(verdict["published"], printed[verdict["measure"]])

    return tables.beside_paper(numbers, verdicts, rows, columns, with_fold, theirs)


def of_variant(name: str) -> tuple[str, ...]:
    """The summaries that are shown of a variant: the plain mean, and of a baseline what the book compares with."""
    return tuple(dict.fromkeys((PLAIN, dict(measures.BASELINES).get(name, PLAIN))))


def profile_name(variant: str, summary: str) -> str:
    """The name of a variant with its summary, where that is not the plain mean."""
    return f"{variant}, {summary}".replace(f", {PLAIN}", "", 1)


def times(value: float, null: float) -> str:
    """How many times the accuracy of the largest class, as an ending; empty where that is not asked, or is that."""
    return f" ({value / null:.1f}x)" if np.isfinite(null) and value != null else ""


def with_fold(line: pd.Series) -> str:
    """An accuracy with what it is times the largest class."""
    return words.accuracy(line) + times(line["value"], line["null"])


def ties_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by every rule for ties, a row a variant and measure; the judged ones and plain encoders."""
    lines = pick(numbers, protocol=TIES, variant=list(VARIANTS))
    return tables.wide(lines, ["variant", "measure"], lambda line: percent(line["value"]), "rule")


def voting_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What knowing one thing of a treatment is worth: counts, whose range is that of ties."""
    lines = pick(numbers, protocol=VOTING)
    bounds = [[round(line[end] * line["scored"]) for end in ("low", "high")] for _, line in lines.iterrows()]
    return pd.DataFrame(
        {
            "all that is known": lines["known"].replace({"moa": "mechanism", "batch": "week"}),
            "asked": lines["measure"],
            "right": [f"{a}" if a == b else f"{a} to {b}" for a, b in bounds],
            "of": lines["scored"].map("{:.0f}".format),
            "per cent": [percent(low) if low == high else f"{percent(low)} to {percent(high)}"
                         for low, high in zip(lines["low"], lines["high"], strict=True)],
        }
    )  # fmt: skip


def probe_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """How often the week of a single cell is named, a row a variant and kind of cells, a column a reader."""
    lines = pick(numbers, protocol=PROBE)
    table = tables.wide(lines, ["variant", "cells"], words.accuracy, "reader")
    nulls = lines.drop_duplicates(["variant", "cells"])["null"].map(percent)
    return table.assign(chance=nulls.to_numpy()) if len(table) else table


def left_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """What is left of the week in control wells by every correction, and what every accuracy is; a row a profile.

    Of the week DMSO wells say nothing where they or their cells were fitted, which draws those of a week together or
    pushes them apart by construction: a dash.
    """
    lines = pick(numbers, protocol=[PROTOCOL, NEAREST.name, LEFT], variant=list(VARIANTS))
    fitted = (lines["cells"] == NEGATIVE) & lines["summary"].isin(CORRECTIONS)
    lines = lines[lines["summary"].notna() & ~fitted].copy()
    of_wells = lines["protocol"] == LEFT
    lines.loc[of_wells, "measure"] = "same week, " + lines.loc[of_wells, "cells"].astype(str)
    order = {name: place for place, name in enumerate(VARIANTS)}
    lines = lines.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    return tables.wide(lines, ["variant", "summary"], words.accuracy)


def reached_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Losses and objective at the end of trainings, a row a variant; what a training has none of is a dash."""
    lines = pick(numbers, protocol=REACHED)
    table = tables.wide(lines, "variant", lambda line: f"{line['value']:.4g}")
    order = ["variant", "reconstruction", "adversary", "confusion", "kernel", "objective"]
    return table.reindex(columns=[name for name in order if name in table])


def agreement_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Agreement of distances without weeks and in truth, a row a profile; of what is corrected only lambda 0 and 50."""
    lines = pick(numbers, protocol=AGREEMENT)
    lines = lines[(lines["summary"] == PLAIN) | lines["variant"].isin([BEFORE, FIFTY])]
    return tables.wide(lines, ["variant", "summary"], lambda line: plain(line["value"], line["low"], line["high"]))


def steps_table(run: Run) -> pd.DataFrame:
    """How far WDN went on the codes of each training, and how far apart the weeks of held-out controls were."""
    if not len(table := measured.optional(run, "maps_of_weeks")):
        return pd.DataFrame()
    distances = {name: table[name].map("{:.4f}".format) for name in ("before", "start", "after") if name in table}
    names = {"training": table["repeat"] + 1, "steps": table["steps"], "stopped because": table["stopped"]}
    return pd.DataFrame({"codes": table["variant"], **names, **distances})


def baseline_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Differences from classical and from transferred features of the same cells; a row a pair."""
    pairs = [", ".join(baseline) for baseline in measures.BASELINES]
    lines = pick(numbers, protocol="paired", measure=list(MEASURES))
    sides = lines["setting"].str.split(" - ", n=1, expand=True).reindex(columns=[0, 1])
    lines = lines.assign(codes=sides[0], less=sides[1])[sides[1].isin(pairs)]
    return tables.wide(lines, ["codes", "less"], words.points)


# --- data of figures ------------------------------------------------------------------------------------------------


def lambda_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """What changes with the weight of the adversary: lam, game, panel, line, value, low, high, null, share.

    R2 is the median over the known parameters of a kind, those below 0 counted as 0.
    """
    known = numbers.dropna(subset=["lam"])
    protocols = {"accuracy of treatments": PROTOCOL, "week of single cells": PROBE, "week of control wells": LEFT}
    found = []
    for panel, protocol in protocols.items():
        part = pick(known, protocol=protocol)
        part = part[part["summary"].isna() | (part["summary"] == PLAIN)]
        line = {PROTOCOL: "measure", PROBE: "reader", LEFT: "cells"}[protocol]
        part = part if protocol != PROBE else pick(part, cells=ALL)
        found.append(part.assign(panel=panel, line=part[line], share=True))
    found.append(pick(known, protocol=IMAGES).assign(panel="mean squared error", line="reconstruction", share=False))
    agree = pick(known, protocol=AGREEMENT, summary=PLAIN)
    agree = agree.assign(line=agree["measure"].map({RESTORED: "with those without weeks", TRUE: "with those in truth"}))
    found.append(agree.assign(panel="rank correlation of distances", share=False))
    truth = pick(known, protocol="truth").rename(columns={"kind": "line"})
    truth = truth.assign(value=truth["value"].clip(lower=0))
    kinds = truth.groupby(["lam", "game", "line"], sort=False)["value"].median()
    found.append(kinds.reset_index().assign(panel="median $R^2$", share=False))
    columns = ["lam", "game", "panel", "line", "value", "low", "high", "null", "share"]
    rows = pd.concat([part.reindex(columns=columns) for part in found if len(part)], ignore_index=True)
    return rows.sort_values("lam", kind="stable", ignore_index=True)


def loss_rows(run: Run, config: Config) -> pd.DataFrame:
    """The losses that are drawn, with the game; the game without an adversary begins where the others do.

    Before its game, where it has no steps, stands a row without a value, so that no line is drawn across.
    """
    history = pick(run.table("history"), term=["reconstruction", "adversary"])
    history = for_a_figure(history, ["variant", "repeat", "term"])
    without = {one.variant for one in trainings(config) if not one.config.terms.adversary}
    late = history["variant"].isin(without) & (history["step"] > config.pretraining)
    of = {name: one["game"] for name, one in games(config).items()}
    gaps = history[late].drop_duplicates(["variant", "repeat", "term"])
    gaps = gaps.assign(step=config.pretraining + config.teaching, value=np.nan)
    history = pd.concat([history.assign(step=history["step"] + config.teaching * late), gaps])
    order = {name: place for place, name in enumerate(of)}
    history = history.sort_values(
        ["variant", "repeat", "term", "step"],
        kind="stable",
        ignore_index=True,
        key=lambda column: column.map(order) if column.name == "variant" else column,
    )
    return history.assign(game=history["variant"].map(of))


def kept_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Biology kept against week left, a row a profile and measure of biology.

    Columns way, label, measure, value, low, high (accuracy), week, week_low, week_high (of the positive control's
    wells the share whose nearest is of the same week), chance.
    """
    left = pick(numbers, protocol=LEFT, cells=POSITIVE)[["variant", "summary", "value", "low", "high", "null"]]
    left = left.set_axis(["variant", "summary", "week", "week_low", "week_high", "chance"], axis=1)
    kept = pick(numbers, protocol=[PROTOCOL, NEAREST.name], measure=[MOA.name, "NSCB"])
    rows = kept[["variant", "summary", "measure", "value", "low", "high", "lam", "game"]].merge(left)
    trained = rows["lam"].notna() & (rows["summary"] == PLAIN)
    before, fifty = (rows["variant"] == name for name in (BEFORE, FIFTY))
    corrected = before & rows["summary"].isin(CORRECTIONS) | fifty & (rows["summary"] == WDN)
    profiles = rows[["variant", "summary"]].itertuples(index=False)
    untrained = rows["variant"].isin(BASELINES) & np.array(
        [summary in of_variant(name) for name, summary in profiles], bool
    )
    way = rows["game"].map(WAYS).where(trained, np.where(corrected, CORRECTED, UNTRAINED))
    correction = np.where(fifty, f"{FIFTY}, ", "") + rows["summary"].str.removeprefix(f"{PLAIN}, ")
    names = [profile_name(*one) for one in rows[["variant", "summary"]].itertuples(index=False)]
    label = np.where(corrected, correction, names)
    return rows.assign(way=way, label=label)[trained | corrected | untrained].reset_index(drop=True)


def truth_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """R2 of the linear probe for every known parameter by variant; empty where no truth is known."""
    lines = pick(numbers, protocol="truth")
    lines = lines.sort_values(["game", "lam"], key=lambda of: of.map(GAME_ORDER) if of.name == "game" else of)
    return lines.rename(columns={"measure": "parameter"})[["setting", "parameter", "kind", "value", "sd"]]


def truth_drawn(known: pd.DataFrame) -> pd.DataFrame:
    """What is drawn of `truth_rows`: the main variants, and parameters of which one of them reads more than `READ`."""
    main = pick(known, setting=list(MAIN))
    most = main.groupby("parameter")["value"].max()
    return pick(main, parameter=list(most.index[most > READ]))


def course_rows(numbers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, week and losses at the checkpoints of the training that was looked at."""
    terms = {"reconstruction": "mean squared error", "adversary": "loss of the adversary (nats)"}
    return course.panels(numbers, (MOA.name,), terms)


def course_caption(steps: pd.DataFrame) -> str:
    """What stands over the table of `course_rows`, with the chance of the week."""
    of_week = steps[steps["panel"].str.startswith(course.SAME_WEEK)]
    chance = percent(of_week["null"].mean())
    return (
        "The same as a table. MOA is here told by the nearest neighbour by cosine, so that it is not that of the "
        "paper's table; same week is that of the nearest positive control well on another plate, which is no measure "
        f"of the paper's table either (chance {chance})."
    )


def pictures(run: Run, config: Config, store: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The pictures of the page with the originals in their places: table, and (n, H, W, 3) uint8 in its order."""
    return with_originals(run, load(config, store))


# --- sentences ------------------------------------------------------------------------------------------------------


def budget_table(config: Config, run: Run) -> pd.DataFrame:
    """How large this run is beside the paper's."""
    own, paper, size = base(config), base(PRESETS["paper"]), run.table("size").iloc[0]
    hours = run.table("trainings")["seconds"].sum() / 3600
    lines = [
        ("cells", f"{size['cells']:,}", "746,350"),
        ("pixels of a crop", f"{size['side']} x {size['side']}", "128 x 128"),
        ("steps of the autoencoder alone", f"{own.pretraining:,}", f"{paper.pretraining:,}"),
        ("steps of the adversary alone", f"{own.teaching:,}", f"{paper.teaching:,}"),
        ("rounds of the game", f"{own.rounds:,}", f"{paper.rounds:,}"),
        ("updates of the adversary in a round", f"{own.adversary_updates:,}", f"{paper.adversary_updates:,}"),
        ("cells in a batch", f"{own.batch:,}", f"{paper.batch:,}"),
        ("features of a code", f"{own.latent:,}", f"{paper.latent:,}"),
        ("layers of the adversary", ", ".join(map(str, own.hidden)), ", ".join(map(str, paper.hidden))),
        ("trainings of what is judged", f"{config.repeats}", "1"),
        ("hours of all trainings together", f"{hours:.1f}", "not said"),
    ]
    return tables.budget_table(lines)


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    device = ", ".join(sorted(run.table("trainings")["device"].unique()))
    screen = SCREENS.get(config.screen, f"the cells of {config.screen}")
    sizes = {"pretraining": "steps of the autoencoder", "rounds": "rounds of the game", "latent": "features of a code"}
    smaller = words.smaller(base(config), base(PRESETS["paper"]), sizes)
    lines = [f"Trained on {screen}, on {device}: {len(trainings(config))} trainings."]
    if smaller:
        lines[0] = f"{lines[0][:-1]} with {', '.join(smaller)}."
        lines.append(
            "The preset `paper` has the paper's numbers and needs a GPU; it has not been run for this page: "
            f"`cellbook run {page} -p preset=paper`."
        )
    lines.append(
        "Numbers from other data than the paper's are *not comparable*; its claims are judged on these cells, but only "
        "where trainings meet the premise that stands with each: else they are *undecided*."
    )
    return words.box("Not the paper's cells" + (", and not its scale" if smaller else ""), lines, "warning")


def premise_words(run: Run, config: Config) -> str:
    """Why games share what stands in the table of premises, and which of two changes stands there."""
    history, paired = run.table("history"), []
    for variant, mine in measures.judged(config).items():
        for one in mine if variant != BEFORE else ():
            part = pick(history, variant=variant, repeat=one.repeat)
            paired.append(measures.phase_changes(part, one.config.lengths))
    text = (
        "All games of a seed begin with the same autoencoder, so that they have its gain. The change is the larger one "
        "of two: of the reconstruction in phase A, which is the same for them, and of the adversary's loss in the game."
    )
    first, second = np.abs(np.array(paired).reshape(-1, 2)).T
    if not len(first) or np.isnan([first, second]).any():
        return text
    bounds = f"in their games the adversary's loss changed by {percent(second.min())} to {percent(second.max())} %"
    if (first >= second).all():
        return f"{text} Here it is the first in all of them, hence the equal numbers: {bounds}."
    return f"{text} Here it is the second in {(second > first).sum()} of {len(first)}: {bounds}."


def known_words(known: pd.DataFrame) -> str:
    """The sentence that opens what codes know: of simulated cells what is known, of real ones that nothing is."""
    if len(known):
        return "Of simulated cells it is known how they were made."
    return "The cells of this screen are real: nobody knows their parameters, nor how they would look without weeks."


def data_words(config: Config) -> str:
    """Which cells a page shows."""
    return f"This page shows {SCREENS.get(config.screen, f'the cells of {config.screen}')}, and no other cells."


def takeaways(numbers: pd.DataFrame, claims: pd.DataFrame) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""

    def reach(variants: tuple[str, ...], summary: str) -> str:
        found = []
        for name in variants:
            for own in of_variant(name) if summary == PLAIN else (summary,):
                mine = pick(numbers, variant=name, summary=own, protocol=PROTOCOL).set_index("measure")
                told = (words.share(mine.loc[measure.name]) for measure in (MOA, WEEK) if len(mine))
                title = profile_name(name, own) if summary == PLAIN else name
                found += [f"{title} {' / '.join(told)}"] if len(mine) else []
        return ", ".join(found)

    first = tuple(name for name in VARIANTS if name not in MADE_ONCE)
    corrected = [f"{summary.removeprefix(f'{PLAIN}, ')}: {reach((BEFORE,), summary)}" for summary in CORRECTIONS]
    lines = [
        f"Mechanism / week of a treatment told by its three nearest (per cent): {reach(first, PLAIN)}.",
        f"The same codes before the game, corrected by control wells: {'; '.join(corrected)}.",
    ]
    return words.takeaways(lines, claims)
