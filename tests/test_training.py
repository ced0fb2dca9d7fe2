"""The training loop, on the smallest method that has all its parts: two networks, two optimisers, noise."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cellbook import training
from cellbook.cells import CellSet
from cellbook.configure import configure
from cellbook.errors import CellbookError
from cellbook.methods import find_method
from cellbook.pixels import unit
from cellbook.profiles import to_wells
from cellbook.training import Batch, Sampler, State, train, train_run, treatment_codes
from cellbook.training.checkpoints import CHECKPOINT, WEIGHTS, load_weights, steps_done
from cellbook.training.codes import KEPT, course_steps, kept_rows


@dataclass(frozen=True)
class Config:
    seed: int = 0
    iterations: int = 12
    batch: int = 8
    rate: float = 1e-2
    noise: float = 0.1
    break_at: int | None = None


def begin(config, cells, device):
    pixels = cells.images[0].size
    networks = {"down": nn.Linear(pixels, 5), "up": nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, pixels))}
    optimisers = {
        "down": torch.optim.Adam(networks["down"].parameters(), lr=config.rate),
        "up": torch.optim.SGD(networks["up"].parameters(), lr=config.rate, momentum=0.9),
    }
    for network in networks.values():
        training.place(network, device)
    return State(config, device, Sampler(treatment_codes(cells.table), device, config.seed), networks, optimisers)


def draw(state, t):
    return state.sampler.balanced(state.config.batch)


def step(state, batch, t):
    x = unit(batch.images).flatten(1)
    code = state.networks["down"](x)
    error = (state.networks["up"](code + state.config.noise * torch.randn_like(code)) - x).square().mean()
    size = code.square().mean() / (0.0 if t == state.config.break_at else 1.0)
    for optimiser in state.optimisers.values():
        optimiser.zero_grad()
    (error + 1e-3 * size).backward()
    for optimiser in state.optimisers.values():
        optimiser.step()
    return {"error": error, "size": size}


def encode(state, cells):
    with torch.no_grad():
        return state.networks["down"](unit(cells.to(state.device)).flatten(1)).numpy()


def finish(state, cells, folder):
    np.save(folder / "codes.npy", encode(state, cells))


TOY = SimpleNamespace(
    __name__="methods.toy",
    VERSION=1,
    Config=Config,
    PRESETS={"paper": Config(), "quick": Config(iterations=3)},
    PARALLEL=True,
    begin=begin,
    draw=draw,
    step=step,
    encode=encode,
    finish=finish,
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other on busy cores make tiny networks slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def toy_cells(n=40, dtype=np.uint16):
    rng = np.random.default_rng(1)
    images = rng.integers(0, np.iinfo(dtype).max, (n, 2, 4, 4), dtype=dtype)
    compound = np.where(np.arange(n) < n // 2, "DMSO", [f"drug {i % 3}" for i in range(n)])
    table = pd.DataFrame({"Metadata_compound": compound, "Metadata_concentration": np.arange(n) // 10 * 1.0})
    return CellSet(images, table, ("DNA", "Actin"), 0.5)


def bits(state):
    return {f"{n}.{k}": v.numpy().tobytes() for n, net in state.networks.items() for k, v in net.state_dict().items()}


def start_process(code, environment=None):
    here = Path(__file__).parent
    start = f"import sys; sys.path.insert(0, {str(here)!r}); import test_training as toy; toy.torch.set_num_threads(1)"
    return subprocess.Popen(
        [sys.executable, "-c", f"{start}; {code}"],
        env=os.environ | (environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_training_goes_on_and_ends_bit_for_bit_like_an_undisturbed_one(tmp_path):
    undisturbed = train(TOY, Config(), toy_cells(), tmp_path / "whole", "cpu")
    code = (
        "from types import SimpleNamespace as N; import os, signal; "
        "die = lambda s, b, t: os.kill(os.getpid(), signal.SIGKILL) if t == 7 else toy.step(s, b, t); "
        "method = N(**{**vars(toy.TOY), 'step': die}); "
        f"toy.train(method, toy.Config(), toy.toy_cells(), {str(tmp_path / 'killed')!r}, 'cpu', checkpoint_seconds=0)"
    )
    killed = start_process(code)
    assert killed.wait(timeout=60) == -signal.SIGKILL, killed.stderr.read()
    left = torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)
    assert left["history"][-1, 0] == 7
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    resumed = train(TOY, Config(), toy_cells(), tmp_path / "killed", "cpu")
    assert bits(resumed) == bits(undisturbed)
    for product in ("history.parquet", WEIGHTS):
        assert (tmp_path / "killed" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()


def test_a_training_that_is_asked_to_stop_keeps_its_step_and_goes_on_bit_for_bit(tmp_path):
    # 1200 steps make a line every 6, so both stops lie between two lines.
    config = Config(iterations=1200)
    undisturbed = train(TOY, config, toy_cells(), tmp_path / "whole", "cpu")
    for number, at, code in ((signal.SIGTERM, 7, 143), (signal.SIGINT, 15, 130)):
        stopped = start_process(
            "from types import SimpleNamespace as N; import os, signal; "
            f"ask = lambda s, b, t: (t == {at} and os.kill(os.getpid(), {int(number)}), toy.step(s, b, t))[1]; "
            "method = N(**{**vars(toy.TOY), 'step': ask}); "
            f"toy.train(method, toy.Config(iterations=1200), toy.toy_cells(), {str(tmp_path / 'cut')!r}, 'cpu')"
        )
        assert stopped.wait(timeout=300) == code, stopped.stderr.read()
        left = torch.load(tmp_path / "cut" / CHECKPOINT, weights_only=True)
        assert left["history"][-1, 0] + len(left["recent"]) == at + 1
    assert bits(train(TOY, config, toy_cells(), tmp_path / "cut", "cpu")) == bits(undisturbed)
    for product in ("history.parquet", WEIGHTS):
        assert (tmp_path / "cut" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()


def test_signals_are_the_callers_again_after_a_training_and_what_he_ignores_stays_ignored(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen = []

    def watched(state, batch, t):
        seen.append(signal.getsignal(signal.SIGTERM))
        return step(state, batch, t)

    method = SimpleNamespace(**{**vars(TOY), "step": watched})
    train(method, Config(iterations=1), toy_cells(), tmp_path / "a", "cpu")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        train(method, Config(iterations=1), toy_cells(), tmp_path / "b", "cpu")
    finally:
        signal.signal(signal.SIGTERM, before[1])
    assert seen[0] not in before
    assert seen[1] == signal.SIG_IGN


def test_the_loss_falls_and_the_history_has_a_row_a_line(tmp_path):
    train(TOY, Config(iterations=450), toy_cells(), tmp_path, "cpu")
    history = pd.read_parquet(tmp_path / "history.parquet")
    assert list(history.columns) == ["step", "error", "size"]
    assert history["step"].tolist() == list(range(2, 451, 2))
    assert history["error"].iloc[-20:].mean() < 0.9 * history["error"].iloc[:5].mean()


def test_the_history_is_the_mean_of_the_steps_between_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(training.loop, "LINES", 2)
    seen = []

    def watched(state, batch, t):
        losses = step(state, batch, t)
        seen.append(losses["error"].item())
        return losses

    method = SimpleNamespace(**{**vars(TOY), "step": watched})
    train(method, Config(iterations=5), toy_cells(), tmp_path, "cpu")
    history = pd.read_parquet(tmp_path / "history.parquet")
    assert history["step"].tolist() == [2, 4, 5]
    assert history["error"].tolist() == pytest.approx([np.mean(seen[:2]), np.mean(seen[2:4]), seen[4]], rel=1e-6)


@pytest.mark.parametrize("lines", [200, 2])
def test_a_loss_that_is_no_number_names_step_and_term_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, lines):
    monkeypatch.setattr(training.loop, "LINES", lines)
    with pytest.raises(CellbookError, match=r"size is inf at step 9.*last good state"):
        train(TOY, Config(break_at=8), toy_cells(), tmp_path, "cpu", checkpoint_seconds=0)
    left = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert left["history"][-1, 0] + len(left["recent"]) == 8
    assert len(left["recent"]) == (0 if lines == 200 else 2)
    assert all(v.isfinite().all() for network in left["networks"].values() for v in network.values())


def test_weights_that_are_no_number_are_never_checkpointed(tmp_path):
    def spoil(state, batch, t):
        losses = step(state, batch, t)
        state.networks["up"][2].bias.data[3] = torch.nan
        return losses

    method = SimpleNamespace(**{**vars(TOY), "step": spoil})
    with pytest.raises(CellbookError, match="weights of up are no longer finite at step 1:"):
        train(method, Config(), toy_cells(), tmp_path, "cpu", checkpoint_seconds=0)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    train(TOY, Config(iterations=2), toy_cells(), tmp_path, "cpu")
    for config, cells in ((Config(iterations=3), toy_cells()), (Config(iterations=2), toy_cells(41))):
        with pytest.raises(CellbookError, match="another configuration, data set"):
            train(TOY, config, cells, tmp_path, "cpu")
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(CellbookError, match="cannot be read"):
        train(TOY, Config(iterations=2), toy_cells(), tmp_path, "cpu")


def test_training_leaves_the_generators_of_its_caller_alone_and_depends_on_its_seed_only(tmp_path):
    torch.manual_seed(5)
    first = train(TOY, Config(), toy_cells(), tmp_path / "a", "cpu")
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert bits(train(TOY, Config(), toy_cells(), tmp_path / "b", "cpu")) == bits(first)
    assert bits(train(TOY, Config(seed=1), toy_cells(), tmp_path / "c", "cpu")) != bits(first)


def test_labels_that_differ_within_a_well_are_refused_before_the_training(tmp_path):
    cells = toy_cells()
    labels = {"Metadata_plate": "P", "Metadata_well": "A1", "Metadata_compound": cells.table["Metadata_compound"]}
    unbegun = SimpleNamespace(**{**vars(TOY), "begin": None})
    with pytest.raises(CellbookError, match="Metadata_compound has more than one value in 1 of 1 groups"):
        train_run(unbegun, Config(), replace(cells, table=pd.DataFrame(labels)), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_a_run_is_trained_once_and_silently_and_its_weights_and_products_fit(tmp_path, capfd):
    cells = toy_cells()
    run = train_run(TOY, Config(), cells, tmp_path, "cpu")
    assert capfd.readouterr() == ("", "")
    assert run.products() == ["codes.npy", "codes.parquet", "history.parquet", WEIGHTS]
    assert not (run.folder / CHECKPOINT).exists()
    broken = SimpleNamespace(**{**vars(TOY), "begin": None})
    assert train_run(broken, Config(), cells, tmp_path, "cpu") == run
    state = training.load_run(TOY, Config(), cells, run, "cpu")
    assert np.array_equal(encode(state, cells), np.load(run.path("codes.npy")))
    with pytest.raises(CellbookError, match="weights of other networks"):
        load_weights(
            begin(Config(), CellSet(cells.images[:, :1], cells.table, ("DNA",), 0.5), state.device), run.path(WEIGHTS)
        )


def test_sampling_is_balanced_over_treatments_or_uniform_over_cells():
    groups = np.array([2, 0, 1, 1, 1, 1, 2, 2])
    sampler = Sampler(groups, torch.device("cpu"), seed=3)
    for _ in range(20):
        rows = sampler.each(2).numpy()
        assert groups[rows].tolist() == [0, 1, 2, 0, 1, 2]
    counts = np.bincount(groups[sampler.balanced(6000).numpy()])
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)
    for rows, expected in (
        (sampler.uniform(8000), np.full(8, 1000)),
        (sampler.balanced(9000), 3000 / np.bincount(groups)[groups]),
    ):
        assert np.abs(np.bincount(rows.numpy(), minlength=8) - expected).max() < 5 * np.sqrt(3000)


def test_cells_that_are_held_out_are_never_drawn():
    groups = np.array([2, 0, 1, 1, 1, 1, 2, 2, 0])
    for rows in (np.array([0, 3, 4, 7]), np.isin(np.arange(9), [0, 3, 4, 7])):
        sampler = Sampler(groups, torch.device("cpu"), 3, rows)
        for draw in (sampler.each(50), sampler.balanced(100), sampler.uniform(100)):
            assert set(draw.tolist()) == {0, 3, 4, 7}
            counts = np.bincount(draw, minlength=9)[[0, 3, 4, 7]]
            assert np.abs(counts - 100 / 4).max() < 5 * np.sqrt(100 / 4)
        assert groups[sampler.each(2)].tolist() == [1, 2, 1, 2]  # group 0 has no cell left and is none
    every = Sampler(groups, torch.device("cpu"), 3, np.arange(9))
    assert torch.equal(every.balanced(20), Sampler(groups, torch.device("cpu"), 3).balanced(20))
    with pytest.raises(CellbookError, match="none of 9 cells"):
        Sampler(groups, torch.device("cpu"), 3, np.array([], dtype=int))


def test_a_treatment_is_compound_and_concentration_and_controls_are_one():
    table = pd.DataFrame({"Metadata_compound": ["b", "DMSO", "a", "b", "DMSO", "b"]})
    assert treatment_codes(table).tolist() == [2, 0, 1, 2, 0, 2]
    table["Metadata_concentration"] = [3.0, np.nan, 1.0, 0.5, 0.0, 3.0]
    assert Counter(treatment_codes(table)) == {0: 2, 1: 1, 2: 1, 3: 2}
    with pytest.raises(CellbookError, match="missing in 1 of 6"):
        treatment_codes(table.assign(Metadata_compound=["b", None, "a", "b", "DMSO", "b"]))


def test_parameters_are_those_of_the_configuration_and_checked():
    assert configure(TOY, {"preset": "quick", "seed": "3", "rate": "1e-3"}) == Config(seed=3, iterations=3, rate=1e-3)
    assert configure(TOY, {"break_at": "None", "rate": 1}) == Config(rate=1.0)
    for given, message in (
        ({"preset": "big"}, "paper, quick"),
        ({"sead": "1"}, "no parameter sead"),
        ({"seed": "x"}, "takes int, got 'x'"),
        ({"seed": "1.5"}, "takes int"),
        ({"seed": "True"}, "takes int"),
        ({"seed": "-1"}, "'seed' takes a whole number from 0 to 2147483647, got -1"),
        ({"rate": "None"}, "takes float"),
        ({"break_at": 0.5}, "takes int or None"),
        ({"break_at": "[a"}, r"takes int or None, got '\[a'"),
    ):
        with pytest.raises(CellbookError, match=message):
            configure(TOY, given)


def test_methods_are_found_by_name_and_unknown_ones_listed():
    assert find_method("vae_plus").VERSION >= 1
    for name in ("nonesuch", "classical", "os"):
        with pytest.raises(CellbookError, match=f"no method '{name}'.*vae_plus"):
            find_method(name)


def test_two_processes_with_half_a_batch_each_train_like_one_with_all_of_it(tmp_path):
    # Without noise and without batch norm the mean over halves is the mean over the whole.
    config = Config(iterations=6, noise=0.0)
    alone = train(TOY, config, toy_cells(), tmp_path / "one", "cpu")
    code = (
        "config = toy.Config(iterations=6, noise=0.0); "
        f"toy.train(toy.TOY, config, toy.toy_cells(), {str(tmp_path / 'two')!r}, 'cpu', checkpoint_seconds=0); "
        f"run = toy.train_run(toy.TOY, config, toy.toy_cells(), {str(tmp_path / 'store')!r}, 'cpu'); "
        "assert len(run.products()) == 4"
    )
    meeting = f"{os.getpid() % 20000 + 20000}"
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": meeting, "OMP_NUM_THREADS": "1"}
    processes = [start_process(code, environment | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
    for process in processes:
        assert process.wait(timeout=90) == 0, process.stderr.read()
    together = load_weights(begin(config, toy_cells(), torch.device("cpu")), tmp_path / "two" / WEIGHTS)
    for name, network in alone.networks.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(together.networks[name].state_dict()[key], value, rtol=1e-4, atol=1e-6)
    histories = [pd.read_parquet(tmp_path / side / "history.parquet") for side in ("one", "two")]
    pd.testing.assert_frame_equal(*histories, rtol=1e-5)
    left = torch.load(tmp_path / "two" / CHECKPOINT, weights_only=True)
    assert len(left["noise"]) == 2
    assert not torch.equal(*left["noise"])


def test_a_batch_that_may_not_be_split_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training.replicas, "join", lambda: (0, 2))
    method = SimpleNamespace(**{**vars(TOY), "PARALLEL": False})
    with pytest.raises(CellbookError, match="needs its batch as a whole"):
        train(method, Config(), toy_cells(), tmp_path, "cpu")
    monkeypatch.setattr(training.replicas, "world", lambda: 3)
    with pytest.raises(CellbookError, match="batch of 8 cannot be split evenly over 3"):
        training.replicas.own_part(torch.arange(8))


def test_a_step_gets_the_images_of_its_rows_as_they_are_stored(tmp_path):
    cells, seen = toy_cells(dtype=np.uint8), []

    def watched(state, batch: Batch, t):
        seen.append(np.array_equal(batch.images.numpy(), cells.images[batch.rows.numpy()]))
        return step(state, Batch(batch.images[0], batch.rows[0]), t)

    two = SimpleNamespace(**{**vars(TOY), "step": watched, "draw": lambda s, t: s.sampler.uniform(10).view(2, 5)})
    train(two, Config(iterations=2), cells, tmp_path, "cpu")
    assert seen == [True, True]


def well_cells(n=120):
    cells = toy_cells(n)
    where = {"Metadata_plate": np.repeat(["p1", "p2"], n // 2), "Metadata_well": [f"A{i % 2}" for i in range(n)]}
    rest = {"Metadata_batch": "w", "Metadata_moa": "m", "Metadata_compound": "DMSO", "Metadata_concentration": 0.0}
    return CellSet(cells.images, pd.DataFrame(where | rest), cells.channels, cells.pixel_um)


def test_profiles_of_wells_are_over_all_cells_and_codes_are_kept_of_some(tmp_path):
    cells, config = well_cells(), Config(iterations=4)
    run = train_run(TOY, config, cells, tmp_path, "cpu")
    codes = np.load(run.path("codes.npy"))
    wells, kept = run.table("wells"), run.table("codes")
    assert wells["Metadata_n"].tolist() == [30] * 4
    own = ((cells.table["Metadata_plate"] == "p2") & (cells.table["Metadata_well"] == "A1")).to_numpy()
    line = wells.query("Metadata_plate == 'p2' and Metadata_well == 'A1'")
    np.testing.assert_allclose(line.filter(like="_mean").to_numpy()[0], codes[own].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(line.filter(like="_sd").to_numpy()[0], codes[own].std(axis=0, ddof=1), rtol=1e-5)
    assert kept.groupby(["Metadata_plate", "Metadata_well"]).size().tolist() == [KEPT] * 4
    np.testing.assert_array_equal(kept.filter(like="z"), codes[kept_rows(cells.table)])


def test_the_course_of_a_training_is_what_a_shorter_one_would_end_with(tmp_path):
    cells, config = well_cells(), Config(iterations=12)
    assert course_steps(40_000) == [0, 80, 174, 378, 823, 1789, 3890, 8459, 18395, 40000]
    course = train_run(TOY, config, cells, tmp_path, "cpu", course=True).table("course")
    assert sorted(course["step"].unique()) == course_steps(12)
    for step in (1, 12):
        codes = train_run(TOY, Config(iterations=step), cells, tmp_path, "cpu").table("codes")
        expected = to_wells(codes).filter(like="z")
        np.testing.assert_allclose(course[course["step"] == step].filter(like="z"), expected, rtol=1e-5)
    plain = train_run(TOY, config, cells, tmp_path, "cpu")
    assert "course.parquet" not in plain.products()  # and looking changed nothing
    pd.testing.assert_frame_equal(
        plain.table("codes"), train_run(TOY, config, cells, tmp_path, course=True).table("codes")
    )


def test_trainings_that_begin_alike_share_their_first_part_and_one_that_is_cut_goes_on(tmp_path):
    """Networks and history are those of the first part, which is trained once; a kill changes nothing."""
    cells, taken = well_cells(), []
    shared = Config(iterations=5)

    def counted(state, batch, t):
        taken.append(t)
        return step(state, batch, t)

    def begins_with(config):
        return (shared, 5) if config != shared else None

    method = SimpleNamespace(**vars(TOY) | {"step": counted, "begins_with": begins_with})
    runs = [train_run(method, Config(rate=rate), cells, tmp_path, "cpu") for rate in (1e-2, 0.0)]
    assert taken == [*range(5), *range(5, 12), *range(5, 12)]
    first = train_run(method, shared, cells, tmp_path, "cpu")
    assert len(taken) == 19  # it is there
    for run in runs:
        history = run.table("history")
        assert history["step"].tolist() == list(range(1, 13))
        pd.testing.assert_frame_equal(history.head(5), first.table("history"))
    assert runs[1].path(WEIGHTS).read_bytes() != runs[0].path(WEIGHTS).read_bytes()
    start, same = (load_file(run.path(WEIGHTS))["up.0.weight"] for run in (first, runs[1]))
    assert torch.equal(start, same)

    def cut(state, batch, t):
        if t == 8:
            raise KeyboardInterrupt
        return step(state, batch, t)

    dies = SimpleNamespace(**vars(method) | {"step": cut})
    with pytest.raises(KeyboardInterrupt):
        train_run(dies, Config(), cells, tmp_path / "cut", "cpu", checkpoint_seconds=0)
    assert steps_done(next((tmp_path / "cut").glob("*.partial")) / CHECKPOINT) == 8
    again = train_run(method, Config(), cells, tmp_path / "cut", "cpu")
    for product in ("history.parquet", WEIGHTS):
        assert again.path(product).read_bytes() == runs[0].path(product).read_bytes()
