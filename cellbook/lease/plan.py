"""What a lease is to make: the entries of a plan, the jobs they are done in, and how much of them fits the time."""

from __future__ import annotations

import heapq
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from cellbook import pages
from cellbook.cells import CellSet
from cellbook.configure import configure, read_value
from cellbook.errors import CellbookError
from cellbook.files import digest
from cellbook.methods import find_method
from cellbook.runs import seeds
from cellbook.screens import named
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.trainings import Place, Training

MARGIN = 0.82  # share of the time that trainings are planned for; speeds are measured in seconds and differ in minutes
SCREEN = SimpleNamespace(Config=SimulatedScreen, PRESETS={"paper": SimulatedScreen()})  # as `configure` takes it


@dataclass(frozen=True)
class Entry:
    """One line of a plan: a page, or a method on a simulated screen, with parameters as on the command line."""

    page: str = ""
    method: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    # Products of a training that travel; of a page, those of the first training of each model.
    carry: tuple[str, ...] = ("weights", "history", "wells")
    # Of a method alone.
    screen: dict[str, Any] = field(default_factory=dict)  # fields of the simulated screen
    repeats: int = 1  # trainings, of seeds one after another
    course: bool = False  # whether they are followed on their way

    @property
    def module(self) -> Any:
        """The method, or what makes the parts of the page."""
        return import_module(f"cellbook.pages.{self.page}.making") if self.page else find_method(self.method)

    @property
    def config(self) -> Any:
        """The configuration that `given` asks for; `iterations` are of all phases, each of which keeps its share."""
        own = import_module(f"cellbook.pages.{self.page}.config") if self.page else self.module
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in self.given.items()}
        iterations = given.pop("iterations", None)
        config = configure(own, given)
        return config if iterations is None else resize(own, config, read_value("iterations", iterations, int))

    @property
    def simulated(self) -> SimulatedScreen:
        """The simulated screen of a method."""
        return configure(SCREEN, self.screen)  # type: ignore[no-any-return]

    def shorter(self, factor: float) -> Entry:
        """The entry with a share of its iterations, in two digits."""
        iterations = int(self.config.iterations * factor)
        unit = 10 ** max(0, len(str(iterations)) - 2)
        return replace(self, given=self.given | {"iterations": max(1, iterations // unit * unit)})

    def told(self) -> dict[str, Any]:
        """The entry as it stands in a plan."""
        plain, own = asdict(Entry()), asdict(self) | {"carry": list(self.carry)}
        return {name: value for name, value in own.items() if value != plain[name]}


@dataclass(frozen=True)
class Job:
    """What one process does: a part of an entry, and what is trained for it, if anything is."""

    entry: Entry
    part: str
    training: Training | None

    @property
    def name(self) -> str:
        """Readable name, the same whatever the iterations are."""
        entry = self.entry
        told = {"iterations"} if entry.page else {"iterations", "seed"}  # a method's part is its seed
        given = {name: value for name, value in entry.given.items() if name not in told} | entry.screen
        return f"{' '.join((entry.page or entry.method, *(f'{k}={v}' for k, v in given.items())))}: {self.part}"

    @property
    def where(self) -> str:
        """Digest of what its cells depend on."""
        given = {name: value for name, value in self.entry.given.items() if name != "iterations"}
        own = [self.entry.page, given] if self.entry.page else self.entry.screen
        return digest([own, self.training and self.training.cells])

    @property
    def kind(self) -> str:
        """Digest of what its speed depends on, the configuration but for seed and length; "" if it trains nothing."""
        if self.training is None:
            return ""
        config = resize(self.training.module, self.training.config, 1000)
        return digest([self.training.method, asdict(config) | {"seed": 0}, self.entry.screen.get("crop")])

    def cells(self, place: Place) -> CellSet:
        """Its cells, from the store if they are there."""
        if self.entry.page:
            return self.entry.module.part_cells(self.entry.config, self.part, place)  # type: ignore[no-any-return]
        return named.load(named.SIMULATED, self.entry.simulated, place.store, place.device)

    def make(self, place: Place) -> dict[str, list[str] | None]:
        """Do it: keys of the runs that came out, each with its products that travel, None for all."""
        entry, one = self.entry, self.training
        found: dict[str, list[str] | None] = {}
        if entry.page:
            found = {run.key: None for run in entry.module.make_part(entry.config, self.part, place)}
        if one is not None and (not entry.page or one.repeat == 0):
            cells = self.cells(place)
            run = place.stored(one, cells) if entry.page else place.of(one, cells)
            if run.fault() is None:  # what was measured elsewhere comes without its training
                found[run.key] = list(entry.carry)
        return found


def resize(own: Any, config: Any, iterations: int) -> Any:
    """A configuration of other length: by the `resize` of its method or page, which keeps the shares of phases."""
    if hasattr(own, "resize"):
        return own.resize(config, iterations)
    return replace(config, iterations=iterations)


def read_plan(path: Path) -> list[Entry]:
    """The entries of a plan, a YAML list, or of the plan that the ``lease.json`` of an earlier lease holds.

    Raises
    ------
    CellbookError : names the number of the entry that cannot be meant.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CellbookError(f"cannot read the plan {path}: {' '.join(str(error).split())}") from error
    if isinstance(content, dict):
        content = content.get("plan")
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise CellbookError(f"{path} is no plan: give a list of entries with `page: KEY` or `method: NAME`")
    entries, numbers = [], {}
    for number, told in enumerate(content, 1):
        try:
            entry = _entry(told)
            names = [job.name for job in jobs_of([entry])]
        except (CellbookError, ModuleNotFoundError) as error:
            raise CellbookError(f"{path}: entry {number}: {error}") from error
        if twice := [name for name in names if numbers.setdefault(name, number) != number]:
            raise CellbookError(f"{path}: entries {numbers[twice[0]]} and {number} both make {twice[0]!r}: drop one")
        entries.append(entry)
    return entries


def _entry(told: Mapping[str, Any]) -> Entry:
    """An entry of a plan; what cannot be meant is refused."""
    if ("page" in told) == ("method" in told):
        raise CellbookError("it needs either page or method")
    known = (
        ["page", "given", "carry"] if "page" in told else ["method", "given", "carry", "screen", "repeats", "course"]
    )
    if unknown := sorted({str(name) for name in told} - set(known)):
        raise CellbookError(f"a {known[0]} has no field {', '.join(unknown)}: there is {', '.join(known)}")
    kinds = {"given": dict, "screen": dict, "carry": list, "repeats": int, "course": bool}
    values = {name: read_value(name, value, kinds[name]) if name in kinds else value for name, value in told.items()}
    entry = Entry(**values | {"carry": tuple(map(str, values.get("carry", Entry.carry)))})
    if entry.page and not in_parts(entry.page):
        there = []
        for info in pkgutil.iter_modules(pages.__path__):
            with suppress(ModuleNotFoundError):  # what another page needs is not installed on every GPU machine
                there += [info.name] if in_parts(info.name) else []
        raise CellbookError(f"no page {entry.page!r} that is made in parts: there is {', '.join(there)}")
    entry.config, entry.simulated  # noqa: B018 refuse what cannot be meant
    return entry


def in_parts(page: str) -> bool:
    """Whether there is such a page whose parts can be made one by one, see `parts` of its `making`."""
    known = {info.name for info in pkgutil.iter_modules(pages.__path__)}
    return page in known and hasattr(import_module(f"cellbook.pages.{page}.making"), "parts")


def jobs_of(entries: Sequence[Entry]) -> list[Job]:
    """All jobs: of each page the parts in its order, of each method its seeds."""
    found = []
    for entry in entries:
        config = entry.config
        if entry.page:
            parts = entry.module.parts(config)
        else:
            each = [replace(config, seed=seed) for seed in seeds(config.seed, entry.repeats)]
            parts = {
                f"seed {own.seed}": Training(entry.method, 0, entry.method, own, course=entry.course) for own in each
            }
        found += [Job(entry, part, training) for part, training in parts.items()]
    return found


def of_each_kind(jobs: Sequence[Job]) -> list[Job]:
    """The first job of each kind of training."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.kind:
            found.setdefault(job.kind, job)
    return list(found.values())


def makespan(seconds: Sequence[float], side_by_side: int) -> float:
    """Seconds until the last of some jobs has ended, each begun as soon as one of the places side by side is free."""
    free = [0.0] * side_by_side
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def fitted(entries: Sequence[Entry], speeds: Mapping[str, float], side_by_side: int, seconds: float) -> list[Entry]:
    """The entries with one share of their iterations, so that they take `seconds` side by side.

    Parameters
    ----------
    entries : most worth first
    speeds : steps a second by kind of job, of one beside so many others; kinds without one are not counted
    side_by_side, seconds : jobs at a time, and for how long
    """
    jobs = [job for job in jobs_of(entries) if job.kind in speeds]
    needed = makespan([job.training.config.iterations / speeds[job.kind] for job in jobs if job.training], side_by_side)
    factor = MARGIN * seconds / needed if needed else 1.0
    return list(entries) if factor >= 1 else [entry.shorter(factor) for entry in entries]
