"""What a treatment does to a cell: interpretable parameters, mechanisms as directions, doses, and drawn cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cellbook.errors import CellbookError
from cellbook.screens.simulator.design import (
    CONTROL,
    GENES,
    GENETIC_CONTROL,
    SimulatedScreen,
    stream,
    treatments,
    variants,
)

# Parameter of a cell: median in untreated cells, spread between cells (factor e^spread), lower and upper bound.
# Effects below are in units of this spread. Lengths and areas are in pixels of 0.65 um or so (as in BBBC021).
PARAMETERS = {
    "nucleus_area": (880.0, 0.20, 250.0, 2800.0),
    "nucleus_elongation": (1.26, 0.13, 1.0, 2.6),  # long over short axis
    "nucleus_texture": (0.17, 0.35, 0.0, 0.5),  # contrast of chromatin
    "nucleus_granularity": (0.40, 0.30, 0.05, 1.0),  # share of coarse chromatin
    "nucleoli": (0.15, 0.35, 0.0, 0.9),  # depth of the nucleolar holes
    "nucleus_lobes": (0.035, 0.50, 0.0, 0.30),  # amplitude of the outline
    "dna": (1.0, 0.22, 0.3, 3.0),  # mean DNA density
    "cell_area": (6200.0, 0.20, 900.0, 7200.0),  # if nobody touched it
    "cell_elongation": (1.30, 0.14, 1.0, 3.2),
    "spikes": (0.09, 0.45, 0.0, 0.55),  # retraction fibres, filopodia
    "polarity": (0.16, 0.50, 0.0, 0.45),  # nucleus off the middle
    "tubulin": (1.0, 0.24, 0.25, 4.0),
    "tubulin_perinuclear": (0.45, 0.30, 0.05, 1.6),
    "filaments": (0.36, 0.30, 0.02, 1.3),  # contrast of microtubules
    "bundling": (0.18, 0.40, 0.0, 1.0),  # coarse bundles instead of single microtubules
    "alignment": (0.35, 0.35, 0.0, 1.0),  # of microtubules, to one direction
    "actin": (1.0, 0.24, 0.25, 4.0),
    "cortex": (0.40, 0.6, 0.02, 2.0),
    "stress_fibres": (0.38, 0.40, 0.0, 1.2),
    "puncta": (0.12, 0.50, 0.0, 1.4),
    "contacts": (0.40, 0.6, 0.0, 2.0),  # actin at borders with neighbours
}
NAMES = tuple(PARAMETERS)
# States beside interphase and their shares in untreated cells; effects on them are in log odds.
STATES = {"mitotic": 0.035, "rounded": 0.015, "binucleate": 0.02, "fragmented": 0.007}
KINDS = ("bipolar", "monopolar", "disordered")  # what a mitotic spindle looks like
LABELS = ("interphase", *STATES)

# Shifts at full effect, chosen from what is known of each mechanism. `density` is the logarithm of the factor on
# the number of cells, `spindle` the form of arrested mitosis.
MECHANISMS: dict[str, dict[str, float | str]] = {
    "Actin disruptors": dict(
        actin=-0.4, cortex=-1.5, stress_fibres=-2.5, puncta=3.0, cell_area=-5.0, spikes=1.8, contacts=-1.5,
        tubulin_perinuclear=1.0, binucleate=2.6, rounded=0.8, density=-0.35,
    ),
    "Aurora kinase inhibitors": dict(
        nucleus_area=2.8, nucleus_lobes=3.0, nucleus_texture=0.8, nucleus_granularity=1.0, cell_area=2.2, dna=-0.7,
        filaments=0.6, alignment=0.7, fragmented=1.4, mitotic=-1.0, density=-0.9,
    ),
    "Cholesterol-lowering": dict(
        cell_elongation=3.2, cell_area=-5.5, spikes=1.6, stress_fibres=-1.2, contacts=-1.5, nucleus_area=-0.9,
        nucleus_elongation=0.7, tubulin=0.5, alignment=1.2, rounded=1.6, density=-0.45,
    ),
    "DNA damage": dict(
        nucleus_area=2.2, cell_area=1.8, dna=-0.5, nucleus_texture=-0.7, filaments=0.6, stress_fibres=1.2,
        cortex=-0.7, mitotic=-2.0, density=-0.95,
    ),
    "DNA replication": dict(
        nucleus_area=1.4, nucleus_texture=1.8, nucleus_granularity=1.4, nucleoli=1.4, cell_area=0.5, tubulin=0.7,
        puncta=0.6, mitotic=-1.5, density=-0.55,
    ),
    "Eg5 inhibitors": dict(
        mitotic=3.3, fragmented=1.5, rounded=1.2, nucleus_area=0.3, cell_area=-1.6, cortex=0.5, density=-0.75,
        spindle="monopolar",
    ),
    "Epithelial": dict(
        contacts=2.8, cortex=1.6, stress_fibres=-1.5, spikes=-1.2, cell_elongation=-1.0, cell_area=0.9, tubulin=-0.5,
        nucleus_elongation=-0.5, filaments=-0.4, density=0.05,
    ),
    "Kinase inhibitors": dict(
        tubulin=-1.1, actin=1.0, stress_fibres=1.2, puncta=1.2, nucleus_texture=-0.9, nucleus_area=-0.5,
        tubulin_perinuclear=-0.9, polarity=1.0, density=-0.25,
    ),
    "Microtubule destabilizers": dict(
        filaments=-3.5, tubulin_perinuclear=-1.0, mitotic=2.3, fragmented=3.6, cell_area=-3.0, nucleus_lobes=1.0,
        tubulin=-0.4, cortex=0.6, spikes=0.8, density=-0.75, spindle="disordered",
    ),
    "Microtubule stabilizers": dict(
        bundling=3.2, filaments=1.6, alignment=1.0, tubulin=1.0, mitotic=1.6, fragmented=3.2, nucleus_area=0.4,
        cell_area=-2.4, spikes=1.0, cell_elongation=1.2, density=-0.75, spindle="disordered",
    ),
    "Protein degradation": dict(
        rounded=2.4, tubulin_perinuclear=2.6, tubulin=1.2, cell_area=-3.6, cell_elongation=0.8, nucleus_area=-0.6,
        dna=0.5, stress_fibres=-0.8, filaments=-0.6, spikes=0.6, density=-0.6,
    ),
    "Protein synthesis": dict(
        nucleus_area=-1.7, nucleoli=-2.0, nucleus_texture=-0.8, tubulin=-1.1, actin=-0.9, cell_area=-1.8, dna=0.4,
        filaments=-0.5, mitotic=-2.0, density=-0.45,
    ),
    # The genetic screen: overexpressed genes act more mildly.
    "KRAS": dict(cell_elongation=1.5, spikes=1.5, actin=0.9, stress_fibres=-0.9, nucleus_area=0.5, density=0.15),
    "EGFR": dict(spikes=1.1, polarity=1.2, tubulin=0.9, contacts=-1.1, cortex=0.6, density=0.1),
    "TP53": dict(nucleus_area=1.4, nucleus_lobes=1.1, cell_area=0.8, mitotic=0.5, dna=-0.4),
    "BRAF": dict(cell_area=-1.2, actin=1.2, cortex=1.3, rounded=0.6, tubulin_perinuclear=0.8, density=-0.2),
    "PIK3CA": dict(cell_area=1.5, filaments=0.8, puncta=1.1, nucleoli=0.9, actin=0.4),
    "CTNNB1": dict(contacts=1.7, cell_elongation=-0.9, cortex=0.9, nucleus_texture=0.8),
    "STK11": dict(nucleus_area=-1.1, tubulin=-1.1, cell_area=-0.7, nucleus_texture=-0.7, density=-0.3),
    "KEAP1": dict(puncta=1.5, tubulin_perinuclear=1.2, actin=-0.7, nucleoli=-0.8),
    "NFE2L2": dict(tubulin=1.2, bundling=1.0, nucleoli=1.1, dna=0.5, alignment=0.8),
    "RIT1": dict(spikes=1.3, alignment=1.2, cell_elongation=0.9, nucleus_elongation=0.9, nucleus_granularity=0.9),
}  # fmt: skip

COMPOUND_SPREAD = 0.25  # of a compound's own shifts, in the units above
STRENGTH_SPREAD = 0.20  # of the factor on its mechanism
WELL_SPREAD = 0.10  # of a well's mean around its treatment's
RESPONDERS = 0.88  # share of cells that respond at all


@dataclass(frozen=True)
class Effect:
    """Full effect of one compound: shifts (P,), log odds of the states (S,), log density and form of the spindle."""

    shift: np.ndarray
    odds: np.ndarray
    density: float
    spindle: int


def compound_effects(config: SimulatedScreen) -> dict[str, Effect]:
    """Effect of every compound or variant at a saturating dose: its mechanism's direction and its own deviation."""
    if config.design == "chemical":
        pairs = treatments()[["compound", "moa"]].drop_duplicates().itertuples(index=False, name=None)
    else:
        pairs = variants()[["variant", "gene"]].itertuples(index=False, name=None)
    effects = {}
    for compound, moa in pairs:
        if moa not in MECHANISMS:
            raise CellbookError(
                f"mechanism {moa!r} of {compound!r} is not simulated: known are {', '.join(MECHANISMS)}."
            )
        known = MECHANISMS[moa]
        draw = stream(config.seed, "compound", compound)
        strength = np.exp(STRENGTH_SPREAD * config.compound_effect * draw.standard_normal())
        own = COMPOUND_SPREAD * config.compound_effect * draw.standard_normal(len(NAMES) + len(STATES))
        if config.design == "genetic" and compound.endswith("_WT"):
            strength *= 0.7
        shift = strength * np.array([float(known.get(name, 0.0)) for name in NAMES]) + own[: len(NAMES)]
        odds = strength * np.array([float(known.get(name, 0.0)) for name in STATES]) + own[len(NAMES) :]
        kind = KINDS.index(str(known.get("spindle", "bipolar")))
        effects[compound] = Effect(shift, odds, float(known.get("density", 0.0)) * strength, kind)
    control = CONTROL if config.design == "chemical" else GENETIC_CONTROL
    effects[control] = Effect(np.zeros(len(NAMES)), np.zeros(len(STATES)), 0.0, 0)
    return effects


def dose_effects(config: SimulatedScreen) -> dict[tuple[str, float], float]:
    """Share of the full effect at each dose, by a Hill curve of the compound's own: rises with dose, 0 for controls.

    The annotated doses are active ones: the half-maximal dose lies at 0.3 to 0.9 of a compound's lowest.
    """
    if config.design == "genetic":
        pairs = {(f"{gene}_{allele}", 0.0): 1.0 for gene, alleles in GENES.items() for allele in alleles}
        return pairs | {(GENETIC_CONTROL, 0.0): 0.0}
    result = {(CONTROL, 0.0): 0.0}
    for compound, doses in treatments().groupby("compound").concentration:
        draw = stream(config.seed, "dose", compound)
        half, slope = doses.min() * draw.uniform(0.3, 0.9), draw.uniform(0.8, 1.4)
        result |= {(str(compound), dose): dose**slope / (dose**slope + half**slope) for dose in doses}
    return result


def draw_cells(config: SimulatedScreen, wells: pd.DataFrame, area: int, area_per_cell: float) -> pd.DataFrame:
    """Parameters of every cell of every field, keyed by seed and field: one row a cell, columns ``truth_*``.

    Parameters
    ----------
    config : SimulatedScreen
    wells : pandas.DataFrame
        Rows of the plate map.
    area : int
        Area of a field in pixels.
    area_per_cell : float
        Area that a cell has on average in untreated wells.

    Returns
    -------
    pandas.DataFrame
        ``row`` (position in `wells`), ``site``, ``cell``, ``truth_state``, ``truth_spindle`` and ``truth_phase``
        (codes), ``truth_dose_effect``, ``truth_effect`` (the effect of this cell, 0 to about 1.5) and
        ``truth_<parameter>``.
    """
    effects, doses = compound_effects(config), dose_effects(config)
    normals, uniforms, rows, sites, means, density = [], [], [], [], [], []
    keys = wells[["Metadata_plate", "Metadata_well", "Metadata_compound", "Metadata_concentration"]]
    for row, (plate, well, compound, dose) in enumerate(keys.itertuples(index=False, name=None)):
        draw = stream(config.seed, "well", plate, well)
        mean, spread = WELL_SPREAD * draw.standard_normal(len(NAMES)), draw.standard_normal()
        share = doses[(compound, dose)] * config.effect
        expected = area / area_per_cell * np.exp(0.10 * spread + effects[compound].density * share)
        for site in range(1, config.sites + 1):
            draw = stream(config.seed, "cells", plate, well, site)
            # Between the floor and the ceiling at random, so that tiny fields have the right mean.
            n = max(2, int(np.floor(expected * np.exp(0.10 * draw.standard_normal()) + draw.random())))
            normals.append(draw.standard_normal((n, len(NAMES))))
            uniforms.append(draw.random((n, 5)))
            rows.append(np.full(n, row))
            sites.append(np.full(n, site))
            means.append(np.broadcast_to(mean, (n, len(NAMES))))
            density.append(np.arange(n))
    z, u, row = np.concatenate(normals), np.concatenate(uniforms), np.concatenate(rows)
    z += np.concatenate(means)
    compounds = wells.Metadata_compound.to_numpy()
    share = np.array([doses[key] for key in zip(compounds, wells.Metadata_concentration, strict=True)]) * config.effect
    shift = np.stack([effects[c].shift for c in compounds])
    odds = np.stack([effects[c].odds for c in compounds])
    spindle = np.array([effects[c].spindle for c in compounds])

    # Cells differ in how much they respond: some not at all, the others by a factor around 1.
    response = np.where(u[:, 0] < RESPONDERS, 0.55 + 0.9 * u[:, 1], 0.0)
    effect = response * share[row]
    # Cell cycle: DNA content between one and two, more cells early; nuclei and cells grow along.
    content = 1.0 + np.clip(1.6 * u[:, 2] - 0.6, 0.0, 1.0)
    latent = z + effect[:, None] * shift[row]
    table = {"row": row, "site": np.concatenate(sites), "cell": np.concatenate(density)}
    table |= _states(u, effect, odds[row], np.where(effect > 0.2, spindle[row], 0))
    table |= {"truth_dose_effect": share[row], "truth_effect": effect, "truth_dna_content": content}
    for i, (name, (median, spread, low, high)) in enumerate(PARAMETERS.items()):
        value = median * np.exp(spread * latent[:, i])
        if name == "nucleus_area":
            value = value * (content / 1.3) ** 0.6
        if name == "cell_area":
            value = value * (content / 1.3) ** 0.4
        if name.endswith("elongation"):
            value = 1.0 + (median - 1.0) * np.exp(2.5 * spread * latent[:, i])
        table[f"truth_{name}"] = np.clip(value, low, high)
    return pd.DataFrame(table)


def _states(u: np.ndarray, effect: np.ndarray, odds: np.ndarray, spindle: np.ndarray) -> dict[str, np.ndarray]:
    """Draw the state of each cell from its log odds; phase 0 to 1 orders mitoses from early to late."""
    base = np.log(np.array(list(STATES.values())) / (1 - sum(STATES.values())))
    weight = np.exp(np.minimum(base + effect[:, None] * odds, 3.0))
    bounds = np.cumsum(weight / (1 + weight.sum(1, keepdims=True)), axis=1)
    state = (u[:, 3:4] < bounds).sum(1)  # 0: none, 4: the first state, ..., 1: the last
    code = np.where(state == 0, 0, len(STATES) + 1 - state)
    return {"truth_state": code, "truth_spindle": spindle, "truth_phase": u[:, 4]}
