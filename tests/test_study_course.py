"""The course of learning: the week of wells against a slow loop, what is stored and read back, lines, table, figure."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cellbook import metrics, profiles
from cellbook.figures.course import course as draw
from cellbook.figures.course import log_ticks
from cellbook.runs import save_table
from cellbook.study import course, profile, rows
from cellbook.training.codes import course_steps

PROTOCOL = metrics.PROTOCOLS["lafarge2019"]
PER_STEP = 24
DRAWS = rows.Draws(200, 1)


class Kept:
    """A run whose products lie in a folder."""

    key = "toy"

    def __init__(self, folder, **tables):
        self.folder = folder
        for name, table in tables.items():
            save_table(table, folder / f"{name}.parquet")

    def products(self):
        return sorted(path.name for path in self.folder.iterdir())

    def path(self, name):
        return self.folder / name

    def table(self, name):
        return pd.read_parquet(self.path(f"{name}.parquet"))


def toy_wells(seed, steps=(0, 5, 90)):
    """Wells of three weeks of two plates at several steps: three mechanisms, ever further apart, and controls."""
    rng, found = np.random.default_rng(seed), []
    for step in steps:
        for week in (1, 2, 3):
            for plate in (1, 2):
                wells = [("DMSO", 0.0, "DMSO", "negative control")] * 4
                wells += [("taxol", 0.3, "tubulin", "positive control")] * 2
                wells += [(f"{moa}{k}", 1.0, moa, "treatment") for moa in ("actin", "dna", "tubulin") for k in range(3)]
                for place, (compound, dose, moa, role) in enumerate(wells):
                    centre = np.zeros(6)
                    centre[["DMSO", "actin", "dna", "tubulin"].index(moa)] = step / 10
                    codes = centre + rng.standard_normal(6) + week * np.eye(6)[4]
                    name = f"Week{week}_{plate}"
                    found.append((step, name, f"A{place:02d}", f"Week{week}", compound, dose, moa, role, *codes))
    names = [f"Metadata_{name}" for name in ("plate", "well", "batch", "compound", "concentration", "moa", "role")]
    return pd.DataFrame(found, columns=["step", *names, *(f"z{i}" for i in range(6))])


def known(wells):
    """The treatments that a page finds in the wells of one step."""
    first = wells[(wells["step"] == 0) & (wells["Metadata_role"] != "positive control")].drop(columns="step")
    units = profile.treatments(first, PROTOCOL.name)
    return units[profiles.metadata(units)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A page's run with the course of two trainings and their histories."""
    folder = tmp_path_factory.mktemp("page")
    treatments, found, weeks = known(toy_wells(0)), {}, []
    for repeat in (0, 1):
        training = Kept(tmp_path_factory.mktemp("training"), course=toy_wells(repeat))
        arrays, tables = course.parts(training, ("VAE", repeat), PROTOCOL.name)
        found |= {f"VAE|{repeat}|{name}": values for name, values in arrays.items()}
        weeks.append(tables["course_weeks"].assign(variant="VAE", repeat=repeat))
    course.save(course.collected(found, {("VAE", 0): 90, ("VAE", 1): 90}), folder)
    assert not found
    weeks = pd.concat(weeks)
    steps = np.arange(8, 97, 8)
    history = pd.concat(
        pd.DataFrame({"step": steps, "pixel": 100.0 - steps + repeat, "feature_1": 1.0, "feature_2": 2.0})
        .melt("step", var_name="term")
        .assign(variant="VAE", repeat=repeat)
        for repeat in (0, 1)
    )
    return Kept(folder, treatments=treatments, course_weeks=weeks, history=history)


@pytest.fixture(scope="module")
def numbers(run):
    return rows.numbers(course.lines(run, PROTOCOL, PER_STEP, DRAWS))


def slow_week(wells):
    """Whether the nearest well on another plate is of the same week, and the chance, by plain loops."""
    z, found = wells.filter(like="z").to_numpy(), []
    week, plate = wells["Metadata_batch"].tolist(), wells["Metadata_plate"].tolist()
    for i in range(len(z)):
        others = [j for j in range(len(z)) if plate[j] != plate[i]]
        same = [week[j] == week[i] for j in others]
        if any(same):
            near = [z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]) for j in others]
            found.append((same[int(np.argmax(near))], np.mean(same)))
    return np.array(found, dtype=float)


def test_week_of_wells_is_that_of_a_slow_loop():
    wells = toy_wells(3, steps=(0,)).query("Metadata_role == 'positive control' and Metadata_plate != 'Week3_2'")
    found = course.week_of_wells(wells.drop(columns="step"))
    np.testing.assert_allclose(found[["correct", "chance"]], slow_week(wells))
    assert set(found["plate"]) == {"Week1_1", "Week1_2", "Week2_1", "Week2_2"}  # Week3 has no other plate
    alone = wells[wells["Metadata_batch"] == "Week1"].drop(columns="step")
    assert course.week_of_wells(alone).empty
    assert course.week_of_wells(wells.iloc[:0].drop(columns="step")).empty


def test_wells_that_are_all_alike_name_the_week_by_chance():
    wells = toy_wells(3, steps=(0,)).query("Metadata_role == 'positive control'").drop(columns="step")
    found = course.week_of_wells(wells.assign(**{f"z{i}": 1.0 for i in range(6)}))
    np.testing.assert_allclose(found["correct"], found["chance"])


def test_stored_distances_are_those_of_each_checkpoint(run):
    found = dict(course.stored(run))
    assert [point[1:] for point in found] == [
        (repeat, step, summary) for repeat in (0, 1) for step in (0, 5, 90) for summary in ("mean", "mean, whitened")
    ]
    wells = toy_wells(1).query("step == 90 and Metadata_role != 'positive control'").drop(columns="step")
    for summary, table in (("mean", wells), ("mean, whitened", profile.whiten(wells)[0])):
        exact = metrics.distance_matrix(profiles.matrix(profile.treatments(table, PROTOCOL.name)))
        stored = found[course.Point("VAE", 1, 90, summary)]
        np.testing.assert_allclose(stored, exact, atol=exact.max() / 65535)


def test_lines_of_a_course_are_means_over_trainings_at_its_cell_views(run, numbers):
    assert not numbers.duplicated(["setting", "protocol", "measure", "k"]).any()
    assert (numbers["views"] == numbers["step"] * PER_STEP).all()
    single = []
    for repeat in (0, 1):
        square = dict(course.stored(run))[course.Point("VAE", repeat, 5, "mean")]
        found = metrics.match(run.table("treatments"), distances=square, **PROTOCOL.measures[0].arguments())
        single.append(found.per_query["correct"].mean())
    line = rows.one(numbers, protocol=course.COURSE, measure="NSC", summary="mean", step=5)
    assert (line["value"], line["trainings"]) == (pytest.approx(np.mean(single)), 2)
    last = rows.one(numbers, protocol=course.COURSE, measure="NSC", summary="mean", step=90)
    assert last["value"] == 1.0  # mechanisms nine deviations apart
    pixel = rows.pick(numbers, protocol=course.OBJECTIVE, measure="pixel")
    steps, lines = course_steps(90)[1:], range(8, 97, 8)  # nothing is known before the first step
    told = [s for s, n in zip(steps, [*steps[1:], 97], strict=True) if any(s <= line < n for line in lines)]
    assert told != steps  # a line of the history is told once
    assert pixel["step"].tolist() == told
    assert pixel["value"].tolist() == [100.5 - min(line for line in lines if line >= s) for s in told]
    week = rows.one(numbers, protocol=course.WEEK, summary="mean", step=0)
    slow = [
        slow_week(toy_wells(r, (0, 5, 90)).query("step == 0 and Metadata_role == 'positive control'")) for r in (0, 1)
    ]
    assert week["value"] == pytest.approx(np.mean(slow, axis=(0, 1))[0])
    assert week["null"] == pytest.approx(2 / 10)


def test_a_run_that_kept_no_course_has_no_lines(tmp_path, run):
    without = Kept(tmp_path, treatments=run.table("treatments"), history=run.table("history"))
    assert list(course.lines(without, PROTOCOL, PER_STEP, DRAWS)) == []
    assert course.parts(without, ("VAE", 0), PROTOCOL.name) == ({}, {})


def test_of_a_training_whose_course_was_not_kept_the_ends_are_shown():
    values = np.arange(6.0)
    names = ["VAE|0|mean|cosine", "untrained encoder|0|mean|cosine", "VAE|1|mean|cosine", "AE|0|mean|cosine"]
    found = {name: values + k for k, name in enumerate(names)}
    points = course.collected(found, {("VAE", 0): 90, ("VAE", 1): 90})
    assert list(points) == [course.Point("VAE", 0, 0, "mean"), course.Point("VAE", 0, 90, "mean")]
    np.testing.assert_array_equal(points["VAE", 0, 0, "mean"], values + 1)
    np.testing.assert_array_equal(points["VAE", 0, 90, "mean"], values)
    assert list(found) == names


@pytest.fixture(scope="module")
def panels(numbers):
    terms = {"pixel": "pixel term", "feature_1": "features", "feature_2": "features"}
    return course.panels(numbers, ("NSC", "NSCB"), terms)


def test_table_of_a_course_has_a_row_a_checkpoint(panels):
    table = course.course_table(panels)
    assert table["cell views"].tolist() == ["0", "120", "2,160"]
    assert table["features"].tolist() == ["–", "3", "3"]  # terms of one panel are added
    assert table["NSC, mean"].iloc[-1].startswith("100.0")
    names = [f"{name}, {of}" for of in ("mean", "mean, whitened") for name in ("NSC", "NSCB", course.SAME_WEEK)]
    assert list(table) == ["model", "cell views", *names, "pixel term", "features"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (6.0, 8.9, [6, 7, 8]),
        (5.4, 44, [10, 20, 30, 40]),
        (0.9, 60, [1, 3, 10, 30]),
        (15, 250, [20, 50, 100, 200]),
        (0.002, 30, [0.01, 0.1, 1, 10]),
        (1e-6, 2e3, [1e-6, 1e-4, 1e-2, 1, 1e2]),
        (1.02, 1.09, [1.02, 1.04, 1.06, 1.08]),
    ],
)
def test_few_numbers_stand_beside_a_log_axis(low, high, ticks):
    np.testing.assert_allclose(log_ticks(low, high), ticks)


def test_figure_of_a_course_shows_every_panel_from_step_zero_to_the_papers_budget(panels):
    references = pd.DataFrame({"variant": ["untrained"], "panel": ["NSC, mean"], "value": [0.25]})
    figure = draw(panels, references, 5000, {"VAE": "#ff0000"})
    shown = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title() for axes in shown]
    assert titles[:3] == ["NSC, mean (%)", "NSCB, mean (%)", "same week, positive control, mean (%)"]
    assert titles[-2:] == ["pixel term", "features"]
    first = shown[0]
    line, level, papers = first.lines
    np.testing.assert_allclose(line.get_ydata(), 100 * panels.loc[panels["panel"] == "NSC, mean", "value"])
    assert (list(line.get_xdata()), line.get_color()) == ([0, 120, 2160], "#ff0000")
    assert level.get_ydata()[0] == 25
    assert papers.get_xdata()[0] == 5000
    assert first.get_xlim()[0] == 0
    assert first.get_xscale() == "symlog"
    assert shown[2].lines[1].get_ydata()[0] == pytest.approx(20)  # chance of the week
    figure.canvas.draw()
    for axes in (axes for axes in shown if axes.get_yscale() == "log"):
        beside = [text for text in axes.get_yticklabels(which="both") if text.get_text()]
        assert 2 <= len(beside) <= 5
        assert [text.get_text() for text in beside] == [f"{tick:,g}" for tick in axes.get_yticks()]
        ends = sorted((box.y0, box.y1) for box in (text.get_window_extent() for text in beside))
        assert all(below[1] < above[0] for below, above in pairwise(ends))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["VAE", "untrained", "cell views in the paper", "chance"]
    plt.close(figure)
