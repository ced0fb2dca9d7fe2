"""The lease itself: cells are drawn, speeds tried, jobs done side by side and stopped in time, and runs packed."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellbook import carry
from cellbook.errors import CellbookError, Stopped
from cellbook.files import alone, write_json, writing
from cellbook.lease.plan import Entry, Job, fitted, jobs_of, of_each_kind
from cellbook.lease.processes import import_once, outcome, start
from cellbook.lease.trial import LOOK, try_all
from cellbook.machine import worker_count
from cellbook.runs import Run, choose_device, run_key
from cellbook.study.trainings import Place
from cellbook.training.loop import keyed, stop_signals

log = logging.getLogger(__name__)

RESERVE, PACKING = 0.13, 0.04  # shares of the time for what follows the trainings, and for packing as its end
LEAST = 2.0  # seconds that are kept for packing, however short the lease
GRACE = 20.0  # seconds that jobs have to keep their step when somebody stops the lease
REPORT = "lease.json"
MOST = 12  # processes on one device, if nobody says otherwise


@dataclass
class Lease:
    """A lease while it lasts: where things go, until when, and what is known of its jobs."""

    place: Place
    out: Path
    minutes: float
    side_by_side: int
    asked: list[int]  # signals that asked it to stop
    say: Callable[[str], None]
    began: float = field(default_factory=time.time)
    report: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of the cells of jobs, by `Job.where`

    def __post_init__(self) -> None:
        reserve, packing = (max(share * 60 * self.minutes, LEAST) for share in (RESERVE, PACKING))
        self.end = self.began + 60 * self.minutes - packing  # of all jobs
        self.last = min(self.end, self.began + 60 * self.minutes - reserve)  # of trainings
        self.report |= {"device": self.place.device, "minutes": self.minutes, "speeds": {}, "jobs": {}}

    def over(self) -> bool:
        """Whether no more training is worth beginning."""
        return bool(self.asked) or time.time() >= self.last

    def save(self) -> None:
        """Write what is known."""
        write_json(self.out / REPORT, self.report)

    def planned(self, entries: Sequence[Entry]) -> None:
        """Report what is to be done, which a second lease can read."""
        self.report["plan"] = [entry.told() for entry in entries]
        self.save()

    def tell(self, job: Job, told: dict[str, Any]) -> None:
        """Report how a job has ended."""
        self.report["jobs"][job.name] = told
        self.say(f"{time.time() - self.began:6.1f} s  {job.name}: {json.dumps(told)[:200]}")
        self.save()

    def stored(self, job: Job) -> Run | None:
        """The run of a job's training, finished or not; None if it trains nothing."""
        one = job.training
        if one is None:
            return None
        about, cells = keyed(one.config, one.course), self.fingerprints[job.where]
        return Run(Path(self.place.store) / run_key(one.method, one.module.VERSION, about, cells))

    # --- before -----------------------------------------------------------------------------------------------------

    def draw_screens(self, jobs: Sequence[Job]) -> list[Job]:
        """Draw the cells of jobs into the store, those of each screen once; jobs that have got theirs."""
        failed: dict[str, str] = {}
        for job in jobs:
            if job.where not in self.fingerprints and job.where not in failed and not self.asked:
                since = time.time()
                try:
                    cells = job.cells(self.place)
                except Exception as error:  # the jobs on other cells go on
                    failed[job.where] = f"no cells: {type(error).__name__}: {error}"
                    continue
                self.fingerprints[job.where] = cells.fingerprint
                self.say(f"{len(cells)} cells of {cells.images.shape[-1]} pixels in {time.time() - since:.1f} s")
        return self.drop(jobs, lambda job: failed.get(job.where))

    def drop(self, jobs: Sequence[Job], why: Callable[[Job], str | None]) -> list[Job]:
        """The jobs that nothing speaks against; the others are reported."""
        for job in jobs:
            if reason := why(job):
                self.tell(job, {"failed": reason})
        return [job for job in jobs if not why(job)]

    def fit(self, entries: Sequence[Entry], jobs: Sequence[Job], work: Path) -> list[Entry]:
        """The entries, shortened to what fits by speeds that are tried; jobs that fail at that are reported."""
        speeds, failed = try_all(jobs, self.place, work, self.side_by_side, self.over)
        self.report["speeds"] = {job.name: speeds[job.kind] for job in of_each_kind(jobs) if job.kind in speeds}
        for name, speed in self.report["speeds"].items():
            self.say(f"{name}: {speed:.1f} steps a second")
        self.drop(jobs, lambda job: failed.get(job.kind) and f"when it was tried: {failed[job.kind]}")
        self.in_time()
        shorter = fitted(entries, speeds, self.side_by_side, self.last - time.time())
        for before, now in zip(entries, shorter, strict=True):
            if now != before:
                wanted, iterations = before.config.iterations, now.config.iterations
                self.say(f"{now.page or now.method}: {iterations} of {wanted} iterations")
        return shorter

    def in_time(self) -> None:
        """Go on only while trainings can begin."""
        if self.asked:
            raise Stopped(128 + self.asked[0], "the lease was stopped before its jobs began: start it again")
        if self.over():
            spent = time.time() - self.began
            raise CellbookError(
                f"minutes={self.minutes:g} are too few: {spent:.0f} s went by before the first training could begin; "
                f"give at least {2 * (spent + LEAST) / 60:.1f}"
            )

    # --- the jobs ---------------------------------------------------------------------------------------------------

    def run_all(self, jobs: Sequence[Job], work: Path) -> None:
        """Do jobs in order, some side by side; trainings are stopped in time to be kept, and at the end all."""
        waiting, running, stopped, left = list(enumerate(jobs)), {}, set(), "no time was left"
        try:
            while waiting or running:
                if self.asked:
                    self.end = min(self.end, time.time() + GRACE)
                    left = "the lease was stopped"
                while waiting and len(running) < self.side_by_side and not self.over():
                    number, job = waiting.pop(0)
                    result = work / f"job-{number}.json"
                    running[number] = job, result, start(make, result, job, self.place), time.time()
                if self.over():
                    for _, job in waiting:
                        self.tell(job, {"left": left})
                    waiting = []
                for number, (job, result, process, since) in list(running.items()):
                    if not process.is_alive():
                        told = outcome(result, process)
                        if "failed" in told and number in stopped and process.exitcode < 0:  # it was not in its loop
                            told = {"stopped": left}
                        self.tell(job, told | {"seconds": round(time.time() - since, 1)})
                        del running[number]
                    elif time.time() >= self.end:
                        stopped.add(number)
                        process.kill()
                    elif self.over() and number not in stopped and (self.asked or self.trains(job)):
                        stopped.add(number)
                        process.terminate()
                time.sleep(LOOK)
        finally:
            for _, _, process, _ in running.values():
                process.kill()

    def trains(self, job: Job) -> bool:
        """Whether a job's training is still to be done."""
        run = self.stored(job)
        return run is not None and run.fault() is not None

    # --- after ------------------------------------------------------------------------------------------------------

    def pack(self, jobs: Sequence[Job], **limits: int) -> None:
        """Pack runs of jobs that are done, then trainings that nobody came to measure, then those that were stopped."""
        store, finished, unmeasured, begun = Path(self.place.store), {}, {}, []
        for job in jobs:
            told, run = self.report["jobs"].get(job.name, {}), self.stored(job)
            finished |= told.get("done", {})
            if "done" not in told and run is not None:
                if run.fault() is None:
                    unmeasured[run.key] = None
                else:
                    begun.append(store / f"{run.key}.partial")
        runs = [(Run(store / key), names) for key, names in (unmeasured | finished).items()]
        runs.sort(key=lambda one: one[0].key in unmeasured)
        self.report |= carry.pack(runs, self.out, begun, **limits)
        for key, reason in self.report["not carried"].items():
            self.say(f"{key} is not carried: {reason}")
        self.save()


def lease(
    entries: Sequence[Entry],
    minutes: float,
    store: Path,
    out: Path,
    *,
    device: str = "auto",
    side_by_side: int | None = None,
    fit: bool = True,
    archives: int = carry.ARCHIVES,
    archive_bytes: int = carry.BYTES,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Make the most of a device for some minutes, and write what can be carried away.

    Parameters
    ----------
    entries : most worth first
    minutes : of all together, from the call to the last file
    store : folder of runs; what is there is not made again, and what was begun is gone on with
    out : new, or of an earlier lease; gets the archives of `carry.pack` and ``lease.json``: speeds, iterations, what
        was done, what failed, and what did not come in
    device : where
    side_by_side : how many processes; as many as cores and memory bear if left out, at most `MOST`
    fit : try how fast trainings are, and shorten all by one factor so that they fit the time
    archives, archive_bytes : see `carry.pack`

    Returns
    -------
    dict
        What is in ``lease.json``.

    Raises
    ------
    CellbookError : too few minutes, a folder that holds something else, a full disk.
    Stopped : Ctrl-C or SIGTERM, after what was finished is packed.
    """
    place = Place(store, choose_device(device))
    with alone(out, wait=False), stop_signals() as asked:
        current = Lease(place, out, minutes, side_by_side or min(MOST, worker_count()), asked, say)
        work = _claim(out)
        current.planned(entries)
        import_once({__name__, *(entry.module.__name__ for entry in entries)})
        jobs = current.draw_screens(jobs_of(entries))
        current.in_time()
        if fit:
            entries = current.fit(entries, jobs, work)
            current.planned(entries)
        jobs = [job for job in jobs_of(entries) if job.name not in current.report["jobs"]]
        current.run_all(jobs, work)
        current.pack(jobs, archives=archives, archive_bytes=archive_bytes)
        if asked:
            words = (
                f"the lease was stopped and what was finished is packed in {out}: go on with {out / REPORT}, --no-fit"
            )
            raise Stopped(128 + asked[0], words)
    return current.report


def make(job: Job, place: Place) -> dict[str, list[str] | None]:
    """Do a job; see `Job.make`."""
    return job.make(place)


def _claim(out: Path) -> Path:
    """Make the folder of a lease ready, and the one in it for what processes write."""
    with writing(out):
        if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
            raise CellbookError(f"{out} holds files that no lease wrote: give another folder")
        work = out / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    return work
