"""A lease: plans that cannot be meant, what fits the time, jobs that fail, and the way of a run to a page at home."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cellbook import carry
from cellbook.book import results
from cellbook.cells import CellSet
from cellbook.errors import CellbookError, Stopped
from cellbook.lease import lease, plan, read_plan, trial, work
from cellbook.lease.plan import Entry, fitted, jobs_of, makespan
from cellbook.methods import fair_cae, vae_plus
from cellbook.pages import lafarge2019
from cellbook.pages.lafarge2019 import making
from cellbook.runs import Run
from cellbook.screens import named
from cellbook.screens.simulator import SimulatedScreen
from cellbook.study.trainings import Place
from cellbook.training.checkpoints import steps_done

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
TINY = {"wells": 1, "controls": 1, "positive_controls": 0, "cells": 2}
PAGE = {"models": ["vae_plus", "vae", "ae"], "week_effects": [], "cells": 3, "iterations": 3}


def written(tmp_path, content):
    path = tmp_path / "plan.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no plan"),
        ("[]", "is no plan"),
        ("{plan: []}", "is no plan"),
        ("{page: lafarge2019}", "is no plan"),
        ("- lafarge2019", "is no plan"),
        ("- [", "cannot read the plan"),
        ("- {}", "entry 1: it needs either page or method"),
        ("- {page: lafarge2019, method: vae_plus}", "entry 1: it needs either page or method"),
        ("- {page: lafarge2018}", "entry 1: no page 'lafarge2018' that is made in parts: there is .*lafarge2019"),
        ("- {page: classical}", "entry 1: no page 'classical' that is made in parts"),
        ("- {page: ../x}", "entry 1: no page '../x'"),
        ("- {page: 3}", "entry 1: no page 3"),
        ("- {method: vae}", "entry 1: no method 'vae' that can be trained: there is .*vae_plus"),
        ("- {method: wdn}", "entry 1: no method 'wdn' that can be trained"),
        ("- {page: lafarge2019, given: {preset: huge}}", "entry 1: preset 'huge' is not known: use one of smoke"),
        ("- {page: lafarge2019, given: {part: x}}", "entry 1: no parameter part"),
        ("- {page: lafarge2019, part: x}", "entry 1: a page has no field part: there is page, given, carry"),
        ("- {page: lafarge2019, repeats: 2}", "entry 1: a page has no field repeats"),
        ("- {page: lafarge2019, given: {iterations: 0}}", "entry 1: iterations=0 must be at least 1"),
        ("- {page: lafarge2019, given: {iterations: x}}", "entry 1: parameter 'iterations' takes int, got 'x'"),
        ("- {method: vae_plus}\n- {method: vae_plus, given: [seed]}", "entry 2: parameter 'given' takes dict"),
        ("- {method: vae_plus, carry: weights}", "entry 1: parameter 'carry' takes list"),
        ("- {method: vae_plus, repeats: 0}", "entry 1: repeats must be at least 1, got 0"),
        ("- {method: vae_plus, repeats: many}", "entry 1: parameter 'repeats' takes int"),
        ("- {method: vae_plus, course: 2}", "entry 1: parameter 'course' takes bool"),
        ("- {method: vae_plus, screen: {cells: few}}", "entry 1: parameter 'cells' takes int"),
        ("- {method: vae_plus, screen: {size: 3}}", "entry 1: no parameter size"),
        ("- {method: vae_plus, screen: {cells: 0}}", "entry 1: cells=0 must lie from 1"),
        ("- {method: vae_plus}\n- {method: vae_plus, course: true}", "entries 1 and 2 both make 'vae_plus: seed 0'"),
        ("- {method: vae_plus, repeats: 3}\n- {method: vae_plus, given: {seed: 2}}", "1 and 2 both make .*seed 2"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_by_the_number_of_its_entry(content, message, tmp_path):
    with pytest.raises(CellbookError, match=message) as caught:
        read_plan(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there_is_refused_by_the_command(tmp_path, run_main):
    code, _, error = run_main("lease", tmp_path / "nowhere.yml", "--out", tmp_path / "out")
    assert (code, error.startswith("error: cannot read the plan ")) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_plan_of_a_lease_is_read_from_its_report(tmp_path):
    told = [
        {"page": "lafarge2019", "given": {"preset": "smoke", "iterations": 7}, "carry": ["weights"]},
        {"method": "weakly_supervised", "screen": {"effect": 1}, "repeats": 2, "course": True},
    ]
    entries = read_plan(written(tmp_path, told))
    (tmp_path / "lease.json").write_text(json.dumps({"plan": [entry.told() for entry in entries]}))
    assert read_plan(tmp_path / "lease.json") == entries
    assert entries[0].config == lafarge2019.config.resize(lafarge2019.PRESETS["smoke"], 7)
    assert entries[1].simulated == SimulatedScreen(effect=1.0)
    assert [job.part for job in jobs_of(entries)][-2:] == ["seed 0", "seed 1"]


def test_of_a_page_all_parts_are_jobs_and_kinds_leave_seeds_and_lengths_out():
    entry = Entry(page="lafarge2019", given={"preset": "long", "repeats": 2})
    jobs = jobs_of([entry, replace(entry, given=entry.given | {"seed": 9, "iterations": 5000})])
    parts = making.parts(replace(lafarge2019.PRESETS["long"], repeats=2))
    assert {job.part for job in jobs} <= parts.keys()
    kinds = [{job.kind for job in jobs if job.part.startswith(f"{name},")} for name in ("VAE+", "VAE", "AE")]
    assert [len(kind) for kind in kinds] == [1, 3, 1]  # beside the VAE those of other betas
    assert {job.kind for job in jobs if job.training is None} == {""}


# --- what fits ------------------------------------------------------------------------------------------------------


def test_the_time_that_jobs_take_side_by_side_is_that_of_a_slow_simulation():
    for seconds, places in itertools.product(([5.0], [3.0, 1, 2, 4, 1], [1.0] * 7), (1, 2, 3, 9)):
        waiting, ends, now = list(seconds), [], 0.0
        while waiting or ends:
            while waiting and len(ends) < places:
                ends.append(now + waiting.pop(0))
            now = min(ends)
            ends.remove(now)
        assert makespan(seconds, places) == now


def test_iterations_are_what_the_time_holds():
    entry = Entry(method="weakly_supervised", given={"iterations": 1000}, repeats=4)
    speeds = {job.kind: 10.0 for job in jobs_of([entry])}
    for places, seconds, share in ((1, 400, 1.0), (2, 100, 0.5), (4, 100, 1.0), (9, 50, 0.5), (1, 40, 0.1)):
        (short,) = fitted([entry], speeds, places, seconds)
        assert short.config.iterations <= 1000 * share * plan.MARGIN
        assert short.config.iterations > 1000 * share * plan.MARGIN - 10
    assert fitted([entry], speeds, 4, 100 / plan.MARGIN) == [entry]
    assert fitted([entry], {}, 1, 1) == [entry]  # whose speed nobody knows


def test_all_phases_are_shortened_alike():
    paper = vae_plus.PRESETS["paper"]
    short = Entry(method="vae_plus", given={"preset": "paper"}).shorter(0.1234).config
    assert (short.iterations, short.ramp) == (4900, round(2500 * 4900 / 40_000))
    assert replace(short, iterations=paper.iterations, ramp=paper.ramp) == paper
    fair = Entry(method="fair_cae", given={"preset": "paper"}).shorter(0.01).config
    assert (fair.pretraining, fair.teaching, fair.rounds) == (1284, 1315, 2)


def test_the_speed_of_a_training_is_that_of_all_its_phases():
    config = replace(fair_cae.PRESETS["smoke"], pretraining=6, teaching=3, rounds=1)
    assert trial.phases_of(fair_cae, config) == {0: 0.6, 6: 0.3, 9: 0.1}
    assert trial.phases_of(vae_plus, vae_plus.PRESETS["smoke"]) == {0: 1.0}


def test_screens_that_are_one_to_python_and_two_to_a_key_are_two(monkeypatch):
    found = iter("ab")
    monkeypatch.setattr(named, "drawn_before", {})
    monkeypatch.setattr(named, "_fingerprint", lambda _: next(found))
    screens = [SimulatedScreen(effect=1), SimulatedScreen(effect=1.0), SimulatedScreen(effect=1)]
    assert screens[0] == screens[1]
    assert [named.fingerprint(named.SIMULATED, screen) for screen in screens] == ["a", "b", "a"]


# --- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deed:
    """A job that does one thing."""

    name: str
    training: None = None

    def make(self, place):
        if self.name == "raise":
            raise CellbookError("no such thing")
        if self.name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "sleep":
            time.sleep(600)
        return {f"toy-{self.name}": None}


@dataclass(frozen=True)
class Slow(Deed):
    """A job whose cells never come."""

    training: str = "something"
    kind = "slow"

    def cells(self, place):
        time.sleep(600)


def test_a_training_that_is_too_slow_to_be_tried_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "READY", 1)
    monkeypatch.setattr(trial, "TRIED", 0.5)
    speeds, failed = trial.try_all([Slow("slow")], Place(tmp_path), tmp_path, 2, lambda: False)
    assert speeds == {}
    assert failed == {"slow": "its first steps took more than 1 s, or those of 0.5 s more than 2 s"}
    assert trial.try_all([Slow("slow")], Place(tmp_path), tmp_path, 2, lambda: True) == ({}, {})


@pytest.fixture
def at_work(tmp_path):
    """Make a lease of some seconds for jobs."""

    def begin(seconds):
        now = work.Lease(Place(tmp_path), tmp_path, 1.0, 2, [], lambda _: None)
        now.end, now.last = time.time() + seconds, time.time() + seconds
        return now

    return begin


def test_a_job_that_fails_or_dies_stops_no_other(at_work, tmp_path):
    now = at_work(300)
    now.run_all([Deed("raise"), Deed("die"), Deed("one"), Deed("two")], tmp_path)
    told = now.report["jobs"]
    assert told["raise"]["failed"] == "CellbookError: no such thing"
    assert told["die"]["failed"] == "ended with code -9 without a word, see job-1.log"
    assert [told[name]["done"] for name in ("one", "two")] == [{"toy-one": None}, {"toy-two": None}]
    assert json.loads((tmp_path / "lease.json").read_text())["jobs"] == told


def test_at_the_end_of_its_time_a_job_is_killed_and_those_that_wait_are_left(at_work, tmp_path):
    now = at_work(3)
    now.side_by_side = 1
    now.run_all([Deed("sleep"), Deed("one")], tmp_path)
    assert now.report["jobs"]["sleep"]["stopped"] == "no time was left"
    assert now.report["jobs"]["one"] == {"left": "no time was left"}
    assert time.time() < now.end + 20


# --- leases ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page and two methods, one of which cannot take the cells: plan, folder of the runs, folder, report."""
    folder = tmp_path_factory.mktemp("lease")
    told = [
        {"page": "lafarge2019", "given": {"preset": "smoke", **PAGE}, "carry": ["weights", "history", "course"]},
        {"method": "fair_cae", "given": {"preset": "smoke"}, "screen": TINY},
        {"method": "weakly_supervised", "given": {"preset": "smoke"}, "screen": TINY, "carry": ["wells"]},
    ]
    entries = read_plan(written(folder, told))
    with pytest.MonkeyPatch.context() as patient:  # on a busy machine
        patient.setattr(trial, "READY", 600)
        patient.setattr(trial, "TRIED", 60)
        report = lease(entries, 20, folder / "runs", folder / "out", device="cpu", side_by_side=2)
    return entries, folder / "runs", folder / "out", report


def test_a_job_that_fails_when_it_is_tried_is_dropped_with_its_reason_and_the_others_are_done(made):
    entries, _, out, report = made
    assert json.loads((out / "lease.json").read_text()) == report
    jobs = {job.name: report["jobs"][job.name] for job in jobs_of(entries)}
    (failed,) = [name for name, told in jobs.items() if "done" not in told]
    assert failed.startswith("fair_cae")
    assert "when it was tried: CellbookError: the crops have 68 x 68 pixels" in jobs[failed]["failed"]
    assert len(report["carried"]) == 3 + 3 + 1 + 1  # measured, trained, plain, weakly supervised
    assert report["not carried"] == {}
    assert len(report["speeds"]) == 4
    assert min(report["speeds"].values()) > 0


def test_a_page_is_made_at_home_of_what_was_carried_and_nothing_is_trained_anew(made, tmp_path, monkeypatch):
    entries, _, out, _ = made
    home = lafarge2019.run(entries[0].config, tmp_path / "home", device="cpu")
    store = tmp_path / "carried"
    told = carry.unpack(out, store)
    assert len([key for key in told["new"] if key.startswith("vae_plus-")]) == 3
    monkeypatch.setattr("cellbook.training.loop.train", lambda *_, **__: pytest.fail("a training was made anew"))
    page = lafarge2019.run(entries[0].config, store, device="cpu")
    here = {path.parent.name for path in store.glob("*/run.json")} - set(told["new"])
    assert here == {page.key, *(key for key in here if key.startswith("screen-"))}  # the cells are drawn at home
    assert page.key == home.key
    found, known = (results.measure("lafarge2019", [run]) for run in (page, home))
    assert found.keys() == known.keys()
    assert len(found["numbers"]) > 100
    for name, table in known.items():
        pd.testing.assert_frame_equal(found[name], table)
    differ = {name for name, told in home.record["products"].items() if page.record["products"][name] != told}
    assert differ <= {"pictures.webp", "pictures.parquet", "trainings.parquet"}  # weights in bf16, seconds


def test_a_second_lease_of_what_is_done_makes_nothing_and_packs_the_same(made):
    entries, store, out, report = made
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/run.json")}
    entries = [entry for entry in entries if entry.method != "fair_cae"]
    again = lease(entries, 20, store, out, device="cpu", side_by_side=2, fit=False)
    assert again["carried"] == report["carried"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["speeds"] == {}


def interrupt(store, number):
    """Send a signal to this process as soon as a training in a store has begun."""

    def wait():
        late = time.time() + 300
        while not list(store.glob("*.partial/checkpoint-course-*")) and time.time() < late:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_lease_that_is_stopped_keeps_its_step_and_a_second_one_goes_on_on_another_machine(tmp_path):
    given = {"preset": "smoke", "iterations": 300}
    entry = Entry(method="weakly_supervised", given=given, screen=TINY, carry=("history", "course"), course=True)
    entries = [entry, replace(entry, given=given | {"seed": 1})]
    waiting = interrupt(tmp_path / "runs", signal.SIGTERM)
    with pytest.raises(
        Stopped, match=r"stopped and what was finished is packed in .*: go on with .*lease\.json, --no-fit"
    ) as caught:
        lease(entries, 20, tmp_path / "runs", tmp_path / "out", device="cpu", side_by_side=1, fit=False)
    waiting.join()
    assert caught.value.code == 128 + signal.SIGTERM
    report = json.loads((tmp_path / "out" / "lease.json").read_text())
    stopped, left = (report["jobs"][job.name] for job in jobs_of(entries))
    assert "was stopped at step" in stopped["stopped"]
    assert left == {"left": "the lease was stopped"}
    (key,) = report["begun"]
    assert carry.unpack(tmp_path / "out", tmp_path / "other")["begun"] == [key]
    before = steps_done(tmp_path / "other" / f"{key}.partial" / "checkpoint.pt")
    assert 0 < before < 300

    again = lease(
        read_plan(tmp_path / "out" / "lease.json")[:1],
        20,
        tmp_path / "other",
        tmp_path / "out2",
        device="cpu",
        fit=False,
    )
    assert again["carried"] == [key]
    went_on = Run(tmp_path / "other" / key)
    (job,) = jobs_of([entry])
    place = Place(tmp_path / "undisturbed")
    undisturbed = place.of(job.training, job.cells(place))
    for name in ("history", "course", "wells"):
        pd.testing.assert_frame_equal(went_on.table(name), undisturbed.table(name))


def test_too_few_minutes_are_one_error(tmp_path):
    entry = Entry(method="weakly_supervised", given={"preset": "smoke"}, screen=TINY)
    with pytest.raises(CellbookError, match=r"minutes=0\.001 are too few: .* give at least"):
        lease([entry], 0.001, tmp_path / "runs", tmp_path / "out", device="cpu")
    assert read_plan(tmp_path / "out" / "lease.json") == [entry]  # so that it can be started again


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CellbookError, match="holds files that no lease wrote: give another folder"):
        lease([Entry(method="weakly_supervised")], 1, tmp_path / "runs", tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_cells_that_are_not_there_drop_the_jobs_on_them_alone(at_work, monkeypatch):
    now = at_work(300)

    def cells(self, place):
        if "screen" in self.entry.given:
            raise CellbookError("no such cells")
        return CellSet(np.zeros((2, 3, 68, 68), np.uint16), pd.DataFrame(index=range(2)), ("a", "b", "c"), 1.0)

    monkeypatch.setattr(plan.Job, "cells", cells)
    jobs = jobs_of([Entry(page="lafarge2019", given={"screen": "mine"}), Entry(method="vae_plus")])
    left = now.draw_screens(jobs)
    assert [job.name for job in left] == ["vae_plus: seed 0"]
    assert {told["failed"] for told in now.report["jobs"].values()} == {"no cells: CellbookError: no such cells"}
    assert len(now.report["jobs"]) == len(jobs) - 1


def test_a_training_that_nobody_came_to_measure_travels_whole(made, tmp_path):
    entries, store, _, _ = made
    job = jobs_of(entries)[0]
    now = work.Lease(Place(store), tmp_path, 1.0, 2, [], lambda _: None)
    now.fingerprints[job.where] = job.cells(now.place).fingerprint
    now.tell(job, {"stopped": "no time was left"})
    now.pack([job])
    run = now.stored(job)
    assert now.report["carried"] == [run.key]
    carry.unpack(tmp_path, tmp_path / "home")
    assert Run(tmp_path / "home" / run.key).products() == run.products()
    assert "codes.parquet" in run.products()


# --- where a GPU is at hand -----------------------------------------------------------------------------------------


def test_the_plan_of_the_benchmark_can_be_meant():
    jobs = jobs_of(read_plan(GPU.with_name("lease.yml")))
    assert {job.training.method for job in jobs if job.training} == {"vae_plus", "weakly_supervised"}
    assert len(jobs) > 20


def test_the_script_for_a_gpu_runs_its_lease_and_says_where_there_is_none(tmp_path):
    variables = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "SIDE_BY_SIDE": "1"}
    variables["PLAN"] = str(
        written(tmp_path, [{"method": "weakly_supervised", "given": {"preset": "smoke"}, "screen": TINY}])
    )
    command = ["bash", GPU, tmp_path / "out", "10", "0", "0"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in lease: 1 runs" in done.stdout.replace(f"{tmp_path}/out/", "")
    assert "MPS: none" in done.stdout
    assert {"environment.txt", "lease", "runs"} <= {path.name for path in (tmp_path / "out").iterdir()}
    variables["DEVICE"] = "cuda:99"
    refused = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "error: DEVICE=cuda:99 is no use here\n")
