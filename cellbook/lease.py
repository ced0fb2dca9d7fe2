"""A GPU for some minutes: a plan of trainings, as many of them side by side as is worth it, stopped in time.

A plan is a list, most worth first. What is asked for is first tried for a few steps, on the device and side by side;
from the speeds follows how many iterations fit. Every job is a process of its own, so that one that fails stops no
other, and one that is stopped keeps its step in the store, from which a second lease goes on.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from cellbook import carry
from cellbook.cells import CellSet
from cellbook.configure import configure
from cellbook.errors import CellbookError, Stopped
from cellbook.files import digest, read_json, write_json
from cellbook.runs import Run, choose_device
from cellbook.screens import named
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.trainings import Place, Training, key_of
from cellbook.training import steps
from cellbook.training.recorded import WARM

log = logging.getLogger(__name__)

RESERVE = 0.13  # share of the time for what follows the trainings: measuring, packing
TRIED = 6.0  # seconds for which speeds are measured
GRACE = 20.0  # seconds that a stopped job has to keep its step
FIELDS = {"page", "method", "given", "screen", "carry", "repeats", "course"}


@dataclass(frozen=True)
class Entry:
    """One line of a plan: a page, or a method on a simulated screen, with parameters as on the command line."""

    page: str = ""
    method: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    screen: dict[str, Any] = field(default_factory=dict)  # of a method: fields of the simulated screen
    carry: tuple[str, ...] = ("weights", "history", "wells")  # of a method: products that are brought home
    repeats: int = 1  # of a method: seeds
    course: bool = False  # of a method: whether it is followed

    @property
    def module(self) -> Any:
        """The method, or the study of the page."""
        return import_module(f"cellbook.pages.{self.page}" if self.page else f"cellbook.methods.{self.method}")

    @property
    def config(self) -> Any:
        """The configuration that `given` asks for; iterations of a page are resized."""
        given = dict(self.given)
        iterations = given.pop("iterations", None) if self.page else None
        config = configure(self.module, given)
        if iterations is not None:
            config = import_module(f"cellbook.pages.{self.page}.config").resize(config, int(iterations))
        return config

    def shorter(self, factor: float) -> Entry:
        """The entry with a share of its iterations, in two digits."""
        iterations = self.config.iterations * factor
        digits = max(0, len(str(int(iterations))) - 2)
        return replace(self, given=self.given | {"iterations": max(1, int(iterations // 10**digits * 10**digits))})


@dataclass(frozen=True)
class Job:
    """What one process does: a part of an entry."""

    entry: Entry
    part: str

    @property
    def name(self) -> str:
        """Readable name."""
        entry = self.entry
        words = (entry.page or entry.method, *(f"{k}={v}" for k, v in entry.given.items() if k != "iterations"))
        return f"{' '.join(words)}: {self.part}"

    def training(self) -> Training | None:
        """What is trained, None for a part that trains nothing."""
        entry = self.entry
        if entry.page:
            return making(entry).parts(entry.config)[self.part]  # type: ignore[no-any-return]
        config = entry.config
        config = replace(config, seed=config.seed + int(self.part.rpartition(" ")[2]))
        return Training(entry.method, 0, entry.method, config, course=entry.course)

    def cells(self, place: Place) -> CellSet:
        """Its cells, from the store if they are there."""
        if self.entry.page:
            return making(self.entry).part_cells(self.entry.config, self.part, place)  # type: ignore[no-any-return]
        screen = SimulatedScreen(**self.entry.screen)
        return named.load(named.SIMULATED, screen, place.store, place.device)

    def kind(self) -> str:
        """Digest of what its speed depends on: the configuration but for seeds and iterations."""
        one = self.training()
        if one is None:
            return ""
        about = asdict(one.config) | {"seed": 0, "iterations": 0, "ramp": 0}
        return digest([one.method, about, self.entry.screen.get("crop")])

    def make(self, place: Place) -> list[tuple[Run, Callable[[str], bool]]]:
        """Do it; the runs that came out, each with what of it travels."""
        entry, one = self.entry, self.training()
        if not entry.page:
            assert one is not None
            return [(place.of(one, self.cells(place)), carry.products(*entry.carry))]
        found = [(run, lambda _: True) for run in making(entry).make_part(entry.config, self.part, place)]
        if one is not None and one.repeat == 0:  # the networks that pictures are drawn with
            trained = Run(Path(place.store) / key_of(one, self.cells(place)))
            found.append((trained, carry.products("weights", "history")))
        return found


def making(entry: Entry) -> Any:
    """The module of a page that makes its parts."""
    return import_module(f"cellbook.pages.{entry.page}.making")


def read_plan(path: Path) -> list[Entry]:
    """The entries of a plan, a YAML list; an entry with an unknown or contradictory field is refused by its number."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CellbookError(f"cannot read the plan {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise CellbookError(f"{path} is no plan: give a list of entries with `page: KEY` or `method: NAME`")
    entries = []
    for place, given in enumerate(content, 1):
        if unknown := sorted(map(str, set(given) - FIELDS)):
            raise CellbookError(
                f"{path}: entry {place} has unknown fields {', '.join(unknown)}: there are {sorted(FIELDS)}"
            )
        if ("page" in given) == ("method" in given):
            raise CellbookError(f"{path}: entry {place} needs either page or method")
        try:
            entry = Entry(**given | ({"carry": tuple(given["carry"])} if "carry" in given else {}))
            entry.config  # noqa: B018 refuses what cannot be meant
            SimulatedScreen(**entry.screen)
        except (TypeError, ValueError, ModuleNotFoundError, AttributeError) as error:
            raise CellbookError(f"{path}: entry {place} cannot be read: {error}") from error
        entries.append(entry)
    return entries


def jobs_of(entries: Sequence[Entry]) -> list[Job]:
    """All jobs: of each page the parts in its order, of each method its seeds."""
    found = []
    for entry in entries:
        parts = making(entry).parts(entry.config) if entry.page else [f"seed {k}" for k in range(entry.repeats)]
        found += [Job(entry, part) for part in parts]
    return found


# --- the processes --------------------------------------------------------------------------------------------------


def _process(work: Callable[..., Any], result: Path, *arguments: Any) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(
        target=_guarded, args=(work, result, named.drawn_before, *arguments)
    )
    process.start()
    return process


def _guarded(work: Callable[..., Any], result: Path, known: dict[SimulatedScreen, str], *arguments: Any) -> None:
    """Call `work`, write what it returns or how it failed, and keep what it prints."""
    with open(result.with_suffix(".log"), "a", encoding="utf-8", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        try:
            torch.set_num_threads(1)
            named.drawn_before.update(known)
            write_json(result, {"done": work(*arguments)})
        except Stopped as stopped:
            write_json(result, {"stopped": str(stopped)})
            sys.exit(stopped.code)
        except BaseException as error:
            traceback.print_exc()
            write_json(result, {"failed": f"{type(error).__name__}: {error}"[:2000]})
            sys.exit(1)


def _try(job: Job, place: Place, begin: float, seconds: float) -> float:
    """Steps a second of a job's training for a while, beside others that begin at the same time."""
    one = job.training()
    assert one is not None
    cells, device = job.cells(place), torch.device(place.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = device.type == "cuda"
        state = one.module.begin(replace(one.config, iterations=10**9), cells, device)
        every = 20 if device.type == "cuda" else 1  # steps between two looks at the clock, which wait for the device
        start, first = 0.0, WARM + 3
        for done, losses in enumerate(steps(one.module, state, cells.to(device)), 1):
            if done == first:
                _finite(losses, state, done)
                time.sleep(max(0.0, begin - time.time()))
                start = time.time()
            elif done > first and done % every == 0:
                _finite(losses, state, done)
                if time.time() > start + seconds:
                    break
        return (done - first) / (time.time() - start)


def _finite(losses: dict[str, torch.Tensor], state: Any, done: int) -> None:
    bad = [name for name, value in losses.items() if not bool(value.isfinite())]
    if bad or state.finite():
        raise CellbookError(f"{', '.join(bad) or state.finite()} is no number after {done} steps")


def _make(job: Job, place: Place) -> list[str]:
    return [run.key for run, _ in job.make(place)]


# --- the lease ------------------------------------------------------------------------------------------------------


def lease(
    entries: Sequence[Entry],
    minutes: float,
    store: Path,
    out: Path,
    *,
    device: str = "auto",
    side_by_side: int = 8,
    fit: bool = True,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Make the most of a device for some minutes, and write what can be carried away.

    Parameters
    ----------
    entries : most worth first
    minutes : of all together, from the call to the last file
    store : folder of runs; what is there is not made again, and what was begun is gone on with
    out : gets the archives of `carry.pack` and ``lease.json``: speeds, iterations, what was done and what failed
    device, side_by_side : where, and how many processes
    fit : shorten all trainings by one factor so that they fit the time

    Returns
    -------
    dict
        What is in ``lease.json``.
    """
    end = time.time() + 60 * minutes
    last = end - max(RESERVE * 60 * minutes, 2.0)  # trainings end before
    place = Place(store, choose_device(device))
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"device": place.device, "minutes": minutes, "speeds": {}, "jobs": {}}
    jobs = jobs_of(entries)
    draw_screens(jobs, place, say)
    speeds = try_all(jobs, place, work, side_by_side, say)
    report["speeds"] = {job.name: speeds[job.kind()] for job in _of_each_kind(jobs)}
    if fit:
        entries = fitted(entries, speeds, side_by_side, last - time.time(), say)
    report["plan"] = [asdict(entry) for entry in entries]
    jobs = [job for job in jobs_of(entries) if not job.kind() or isinstance(speeds.get(job.kind()), float)]
    run_all(jobs, place, work, side_by_side, last, end, report["jobs"], say)
    write_json(out / "lease.json", report)
    finished = [job for job in jobs if "done" in report["jobs"].get(job.name, {})]
    report["carried"] = carry.pack((each for job in finished for each in job.make(place)), out)
    write_json(out / "lease.json", report)
    return report


def draw_screens(jobs: Sequence[Job], place: Place, say: Callable[[str], None]) -> None:
    """Draw every screen once, into the store."""
    known = set()
    for job in jobs:
        one, given = job.training(), {k: v for k, v in job.entry.given.items() if k != "iterations"}
        which = digest([job.entry.page, given if job.entry.page else job.entry.screen, one and one.cells])
        if which not in known:
            began = time.time()
            known.add(which)
            cells = job.cells(place)
            seconds = time.time() - began
            say(f"{len(cells)} cells of {cells.images.shape[-1]} pixels in {seconds:.1f} s: {cells.fingerprint}")


def _of_each_kind(jobs: Sequence[Job]) -> list[Job]:
    found: dict[str, Job] = {}
    for job in jobs:
        if job.kind():
            found.setdefault(job.kind(), job)
    return list(found.values())


def try_all(
    jobs: Sequence[Job], place: Place, work: Path, side_by_side: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Steps a second of one job of each kind, as many side by side as later, or how it failed, by kind."""
    found: dict[str, Any] = {}
    kinds = _of_each_kind(jobs)
    for start in range(0, len(kinds), side_by_side):
        some = kinds[start : start + side_by_side]
        beside = [job for job in jobs if job.kind()][: side_by_side - len(some)]  # so that the device is as busy
        begin = time.time() + (24.0 if place.device.startswith("cuda") else 4.0)
        tried = []
        for number, job in enumerate([*some, *beside], start):
            path = work / f"try-{number}.json"
            tried.append((job, path, _process(_try, path, job, place, begin, TRIED)))
        for job, path, process in tried:
            process.join(timeout=max(1.0, begin + 3 * TRIED - time.time()))
            if process.is_alive():
                process.kill()
                process.join()
            told = read_json(path) if path.is_file() else {"failed": "ended without a word"}
            found.setdefault(job.kind(), told.get("done", told.get("failed")))
            say(f"{job.name}: {told.get('done', told.get('failed'))} steps a second")
    return found


def fitted(
    entries: Sequence[Entry], speeds: dict[str, Any], side_by_side: int, seconds: float, say: Callable[[str], None]
) -> list[Entry]:
    """The entries with one share of their iterations, so that all of them take `seconds` side by side."""
    needed = 0.0
    for job in jobs_of(entries):
        one = job.training()
        if one is not None and isinstance(speeds.get(job.kind()), float):
            needed += one.config.iterations / speeds[job.kind()] / side_by_side
    factor = min(1.0, 0.82 * seconds / max(needed, 1e-9))
    say(f"all trainings take {needed:.0f} s side by side, there are {seconds:.0f}: {factor:.3f} of their iterations")
    return list(entries) if factor >= 1 else [entry.shorter(factor) for entry in entries]


def run_all(
    jobs: Sequence[Job],
    place: Place,
    work: Path,
    side_by_side: int,
    last: float,
    end: float,
    report: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Run jobs in order, some side by side; at `last` those that train are stopped, and before `end` all are."""
    waiting, running = list(enumerate(jobs)), {}
    began = time.time()
    stopped: set[int] = set()
    while waiting or running:
        now = time.time()
        while waiting and len(running) < side_by_side and now < last:
            number, job = waiting.pop(0)
            path = work / f"job-{number}.json"
            path.unlink(missing_ok=True)
            running[number] = job, path, _process(_make, path, job, place)
        if now >= last:
            for _, job in waiting:
                report[job.name] = {"left": "no time was left"}
            waiting = []
        for number, (job, path, process) in list(running.items()):
            if now >= last and number not in stopped and process.is_alive() and _trains(job, place):
                process.terminate()
                stopped.add(number)
            if process.is_alive() and now >= end - 2:
                process.kill()
            if not process.is_alive():
                process.join()
                told = read_json(path) if path.is_file() else {"failed": f"ended with code {process.exitcode}"}
                report[job.name] = told | {"seconds": round(now - began, 1)}
                say(f"{now - began:6.1f} s  {job.name}: {json.dumps(told)[:200]}")
                del running[number]
        time.sleep(0.1)


def _trains(job: Job, place: Place) -> bool:
    """Whether its training is not in the store yet."""
    one = job.training()
    return one is not None and Run(Path(place.store) / key_of(one, job.cells(place))).fault() is not None
