"""Which trainings of the book are there, and by what they can be compared: weights, or profiles of wells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cellbook.cells import CellSet
from cellbook.files import digest
from cellbook.methods.fair_cae.networks import SHRINK
from cellbook.pages.comparison.config import (
    LEFT_OUT,
    OURS,
    Config,
    label,
    of_page,
    page,
    preset_of,
    steps_of,
    trainings,
)
from cellbook.runs import Run, known_by, run_key
from cellbook.screens import named
from cellbook.study.trainings import Training, told
from cellbook.training.checkpoints import WEIGHTS
from cellbook.training.loop import keyed

MULTIPLE = {"fair_cae": SHRINK}  # pixels of which a side must be a multiple, by method
NOT_THERE, WITHOUT_WEIGHTS = (
    "training {} of it is not in the store",
    "its weights were not kept, nor its wells of these cells",
)


@dataclass(frozen=True)
class Source:
    """A training of a page, and where it is.

    Attributes
    ----------
    name : of the representation
    paper : key of the page; of what is of no paper this one
    own : configuration of the page
    one : the training
    run : of the training; None: it is not in the store
    seen : which of the page's cells its key names
    why : what keeps it from being compared, empty if nothing does
    """

    name: str
    paper: str
    own: Any
    one: Training
    run: Run | None
    why: str

    @property
    def weights(self) -> Path | None:
        """The file of its weights."""
        path = self.run.folder / WEIGHTS if self.run else None
        return path if path and path.is_file() else None

    def told(self, config: Config) -> dict[str, str]:
        """What the page says of one that is missing."""
        if self.paper == OURS:
            plain, own = self.one.module.PRESETS[config.own], self.one.config
            others = [name for name in ("iterations", "seed") if getattr(own, name) != getattr(plain, name)]
            parts = [f"preset={config.own}", *(f"{name}={getattr(own, name)}" for name in others)]
            command = f"cellbook train {self.one.method} --cells {where_cells_are(config)}"
            return self._told(command, parts)
        parts = [f"preset={preset_of(self.paper, config)}"]
        parts += [f"screen={config.screen}"] if config.screen != type(self.own).screen else []
        parts += [f"iterations={steps}"] if (steps := steps_of(self.paper, config)) else []
        return self._told(f"cellbook run {self.paper}", parts)

    def _told(self, command: str, parts: Sequence[str]) -> dict[str, str]:
        given = " ".join(f"-p {part}" for part in parts)
        return {"representation": self.name, "why": self.why, "command": f"{command} {given}"}


def sources(config: Config, store: str | Path) -> list[Source]:
    """Every training that could be compared, those that are not there among them: of the papers, then of this page."""
    found = []
    for paper, _ in config.pages:
        if (own := of_page(paper, config)) is not None:
            found += _of_page(paper, own, page(paper).trainings(own), config, Path(store))  # type: ignore[union-attr]
    return [*found, *_of_page(OURS, config, trainings(config), config, Path(store))]


def _of_page(paper: str, own: Any, todo: list[Training], config: Config, store: Path) -> Iterator[Source]:
    prints = fingerprints(own, store) if todo else []
    for one in todo:
        if one.repeat >= config.trainings or one.cells is not None or one.variant in LEFT_OUT.get(paper, ()):
            continue
        keys = [run_key(one.method, one.module.VERSION, keyed(one.config, one.course), known) for known in prints]
        run = next((Run(store / key) for key in keys if (store / key / "run.json").is_file()), None)
        source = Source(label(one.variant, paper), paper, own, one, run, "")
        if run is None:
            source = replace(source, why=NOT_THERE.format(one.repeat + 1))
        elif not source.weights and not has_wells(source, config):
            source = replace(source, why=WITHOUT_WEIGHTS)
        yield source


def fingerprints(own: Any, store: Path) -> list[str]:
    """Fingerprints that the cells of a page may have: as they are, or cut to what its networks can halve.

    Those of a simulated screen of which all cells are used are known without drawing it.
    """
    per_well = getattr(own, "per_well", 0)
    if own.screen == named.SIMULATED and not per_well:
        return [named.fingerprint(own.screen, own.simulated, **canvas(own))]
    cells = named.load(own.screen, own.simulated, store, "cpu", per_well, **canvas(own))
    sides = [side // SHRINK * SHRINK for side in cells.images.shape[-2:]]
    found = [cells.fingerprint, named.middle(cells, sides).fingerprint]
    return list(dict.fromkeys([*found, named.fingerprint(own.screen, own.simulated)]))  # of a folder as it is


def where_cells_are(config: Config) -> str:
    """The cells of this page as `cellbook train` takes them: simulated ones lie in the store once they are drawn."""
    if config.screen != named.SIMULATED:
        return config.screen
    known = named.fingerprint(config.screen, config.simulated)
    return f"runs/{run_key('screen', named.VERSION, asdict(config.simulated), known)}/cells"


def canvas(own: Any) -> dict[str, int]:
    """How a page whose networks see each cell alone asks for its crops; of the others nothing."""
    return {"canvas": own.side, "times": own.shrink} if hasattr(own, "shrink") else {}


def has_wells(source: Source, config: Config) -> bool:
    """Whether a run has kept profiles of wells over the very cells of this page; the size of crops may be another."""
    kept = source.run is not None and (source.run.folder / "wells.parquet").is_file()
    if not kept or getattr(source.own, "per_well", 0):
        return False
    if config.screen != named.SIMULATED:
        return True
    return bool(replace(source.own.simulated, crop=config.crop) == config.simulated)


def made_elsewhere(config: Config, version: int, store: str | Path) -> Run | None:
    """A finished run of this configuration in a store that was made of trainings of another; None if there is none."""
    wanted = digest(known_by(replace(config, screen=Path(config.screen).name)))
    for path in sorted(Path(store).glob("comparison-*/run.json")):
        run = Run(path.parent)
        known = "" if run.fault() else digest(run.record["config"])
        if known == wanted and run.record["method_version"] == version and run.table("compared")["trained"].any():
            return run
    return None


def network_cells(source: Source, config: Config, store: str | Path, *, weeks: bool = True) -> CellSet:
    """The cells of this page in crops as large as those that a network was trained on; or all without week effects."""
    simulated = replace(config.simulated, crop=source.own.simulated.crop)
    simulated = simulated if weeks else replace(simulated, week_effect=0.0)
    cells = named.load(config.screen, simulated, store, **canvas(source.own))
    multiple = MULTIPLE.get(source.one.method, 1)
    return named.middle(cells, [side // multiple * multiple for side in cells.images.shape[-2:]])


def missing(found: list[Source], config: Config) -> pd.DataFrame:
    """What is not compared, why, and what would make it: representation, why, command."""
    rows = [source.told(config) for source in found if source.why]
    rows += [
        {"representation": name, "why": f"there is no such page with a preset {preset} yet", "command": "–"}
        for name, preset in config.pages
        if of_page(name, config) is None
    ]
    return pd.DataFrame(rows, columns=["representation", "why", "command"]).drop_duplicates()


def firsts(found: list[Source]) -> list[Source]:
    """Of each paper of which something is there the first training.

    Its network is also compared before its first step, and by its other layers if a layer is what it gives.
    """
    there = {}
    for source in found:
        if not source.why:
            there.setdefault(source.paper, source)
    return list(there.values())


def own_trainings(compared: Sequence[Source | None]) -> pd.DataFrame:
    """Records of the trainings of no paper, by which `cellbook features` finds their networks, as a page tells its own.

    `deviation` is how far from a collapse the embeddings were at the end.
    """
    rows = []
    for source in compared:
        if source and source.run and source.paper == OURS:
            end = source.run.table("history").iloc[-1]
            name = {"variant": source.one.variant, "repeat": source.one.repeat, "deviation": end["deviation"]}
            rows.append(told(source.run) | name)
    return pd.DataFrame(rows)
