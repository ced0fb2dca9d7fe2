"""Sentences of the page that depend on what was run and found, as Markdown."""

from __future__ import annotations

import pandas as pd

from cellbook.claims import IN_WORDS
from cellbook.pages.lafarge2019.config import BASELINES, PAPER_MODELS, PRESETS, PROTOCOL, Config
from cellbook.runs import Run
from cellbook.study.profile import SUMMARIES
from cellbook.study.rows import pick
from cellbook.study.show import percent

SIMULATED_WORDS = "simulated cells with the plate map of BBBC021"


def warning(config: Config, run: Run, page: str) -> str:
    """The box at the top: what this run is and is not, as Markdown."""
    paper, trained = PRESETS["paper"], run.table("trainings")
    device = ", ".join(sorted(trained["device"].unique()))
    screen = {
        "simulated": SIMULATED_WORDS,
        "bbbc021-sample": f"{run.table('size')['cells'].iloc[0]:,} real crops of BBBC021 instead of a million",
    }.get(config.screen, f"the cells of {config.screen}")
    sizes = {"iterations": "iterations", "width": "channels a layer", "latent": "features of the code"}
    smaller = [
        f"{getattr(config, name):,} {words} instead of {getattr(paper, name):,}"
        for name, words in sizes.items()
        if getattr(config, name) != getattr(paper, name)
    ]
    lines = [
        "```{admonition} Not the paper's cells" + (", and not its scale" if smaller else ""),
        ":class: warning",
        f"Trained on {screen}, on {device}: {len(trained)} trainings"
        + (f" with {', '.join(smaller)}." if smaller else "."),
    ]
    if smaller:
        lines.append(
            "The preset `paper` has the paper's numbers and needs a GPU; it has not been run for this page: "
            f"`cellbook run {page} -p preset=paper`."
        )
    lines += [
        "Numbers from other data than the paper's are *not comparable*; its claims are judged here all the same, on "
        "these cells and at this scale.",
        "```",
    ]
    return "\n".join(lines)


def swept_words(config: Config) -> str:
    """What was trained beside the page's own strength of the batch effect, as a sentence; empty if nothing was."""
    if config.screen != "simulated" or not config.week_effects:
        return ""
    strengths = " and ".join(f"{effect:g}" for effect in config.week_effects)
    return (
        f"The same cells are also drawn with a batch effect of strength {strengths} (this screen has "
        f"{config.week_effect:g}), and models are trained anew."
    )


def disagreement_words(run: Run) -> str:
    """How often AE and VAE+ give a treatment different mechanisms, and which of them is right, as a sentence."""
    named = run.table("assigned")
    right = {variant: named[variant] == named["Metadata_moa"] for variant in ("AE", "VAE+")}
    plus, plain = (int((right[a] & ~right[b]).sum()) for a, b in (("VAE+", "AE"), ("AE", "VAE+")))
    return (
        f"Of {len(named)} treatments, {plus} are given the right mechanism by VAE+ alone and {plain} by AE alone "
        "(first training, mean profiles, NSC)."
    )


def takeaways(tables: dict[str, pd.DataFrame]) -> str:
    """Key takeaways as Markdown; every number in them is read from the tables."""
    numbers, claims = tables["numbers"], tables["claims"]

    def reach(names: tuple[str, ...], summary: str) -> str:
        found = []
        for name in names:
            value = pick(numbers, setting=f"{name}, {summary}", protocol=PROTOCOL).set_index("measure")["value"]
            found.append(f"{name} {percent(value['NSC'])} / {percent(value['NSCB'])}")
        return ", ".join(found)

    images = pick(numbers, protocol="images", measure="sharpness").set_index("setting")["value"]
    sharp = ", ".join(f"{variant} {images[variant]:.2f}" for variant in PAPER_MODELS)
    verdicts = [f"*{IN_WORDS[line['verdict']]}*: {line['sentence']}" for _, line in claims.iterrows()]
    return "\n".join(
        [
            "```{admonition} Key takeaways",
            ":class: important",
            *(
                f"- {label} ({{term}}`NSC` / {{term}}`NSCB`, per cent): {reach(PAPER_MODELS, summary)}; without any "
                f"training {reach(BASELINES, summary)}."
                for label, summary in (("Mean profiles", SUMMARIES[0]), ("The same, whitened", SUMMARIES[1]))
            ),
            f"- Sharpness of reconstructions, where 1 is that of the originals: {sharp}.",
            *(f"- Claim {line}" for line in verdicts),
            "```",
        ]
    )
