"""What the page says in sentences that depend on its numbers: boxes at its top, parts of captions."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import IN_WORDS
from cellbook.pages.tabak2020 import corrected as c
from cellbook.pages.tabak2020.config import PRESETS, Config
from cellbook.pages.tabak2020.leaking import week_protocol
from cellbook.pages.tabak2020.measures import POOLED
from cellbook.pages.tabak2020.predicates import line
from cellbook.pages.tabak2020.tables import FEWEST_DRAWS, WDN, mains
from cellbook.study.rows import pick
from cellbook.study.show import percent


def warning(config: Config, sources: pd.DataFrame) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    paper = PRESETS["paper"]
    left_out = str(sources["left_out"].iloc[0])
    return "\n".join(
        [
            "```{admonition} Not the paper's data, and not its scale",
            ":class: warning",
            "The paper aligns all cells of BBBC021; here are means of all its wells, and some thousands of cells.",
            "Its deep embedding was never released; codes of VAE+ stand in for it, so that tables 4 to 6 are *not "
            "comparable* in their numbers, and its claims are judged on what is here.",
            f"Wells are aligned in {config.well_iterations:,} map steps after {config.well_pretraining:,} steps of the "
            f"critics at a rate of {config.well_rate:g}, cells in {config.cell_iterations:,} after "
            f"{config.cell_pretraining:,} at {config.cell_rate:g}; the published code has "
            f"{paper.well_iterations:,} after {paper.well_pretraining:,} at {paper.well_rate:g}.",
            f"Variants, the faults of the published code, and the maps whose generalisation is judged have a short "
            f"budget of {config.short_iterations:,} map steps after {config.short_pretraining:,} at "
            f"{config.short_rate:g}.",
            *([left_out] if left_out else []),
            "```",
        ]
    )


def takeaways(tables: dict[str, pd.DataFrame]) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    numbers, claims, sources = tables["numbers"], tables["claims"], tables["sources"]
    lines = []
    for source in mains(sources):
        found = [
            [line(numbers, source=source, method=m, protocol=POOLED, measure=k, k=1) for k in ("NSC", "NSCB")]
            for m in (c.UNCORRECTED, WDN[0])
        ]
        texts = [" / ".join(percent(value["value"]) for value in pair) for pair in found]
        week = [
            line(numbers, source=source, method=m, protocol=week_protocol(c.ROWS), measure="logistic")
            for m in (c.UNCORRECTED, c.LAST, "noise")
        ]
        named = [percent(value["value"]) for value in week if value is not None]
        also = (
            f"; the week of a control is named in {named[0]} % and, at the last step, {named[1]} %, "
            f"from noise in {named[2]} %"
            if len(named) == 3
            else ""
        )
        start = source[0].upper() + source[1:]
        lines.append(f"- {start}: NSC / NSCB {texts[0]} % without a correction, {texts[1]} % with WDN{also}.")
    verdicts = [f"- Claim *{IN_WORDS[one['verdict']]}*: {one['sentence']}" for _, one in claims.iterrows()]
    return "\n".join(["```{admonition} Key takeaways", ":class: important", *lines, *verdicts, "```"])


def resampling(config: Config, sources: pd.DataFrame, source: str) -> str:
    """How often a source is resampled, and the controls whose week is named: a sentence of a caption."""
    about = sources.set_index("source").loc[source]
    few = "" if config.leak_bootstraps >= FEWEST_DRAWS else ", too few for a standard error"
    asked = "once" if config.leak_bootstraps == 1 else f"{config.leak_bootstraps} times"
    return (
        f"{config.bootstraps} resamples; the week is asked of {min(config.leak_rows, about['controls']):,} of "
        f"{about['controls']:,} controls, and {asked} of resampled ones{few}."
    )


def absent(numbers: pd.DataFrame, sources: pd.DataFrame) -> str:
    """Which corrections stand not in the table of other corrections, and why: a sentence."""
    made = set(pick(numbers, protocol=POOLED)["source"] + ": " + pick(numbers, protocol=POOLED)["method"])
    reasons = ["ComBat is not in this book"]
    if not any(name.endswith(f": {c.HARMONY}") for name in made):
        reasons.append("Harmony was not run, as its package, an extra, was not installed")
    without = [source for source in mains(sources) if f"{source}: {c.ROBUST}" not in made]
    if without:
        reasons.append(f"{c.ROBUST} needs {c.LEAST_ON_PLATE} controls on every plate: not on {' and '.join(without)}")
    return "Left out: " + "; ".join(reasons) + "."
