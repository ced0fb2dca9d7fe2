"""The fair autoencoder against the paper's numbers, slow loops and rounds of its game written out by hand."""

import math
import warnings
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from typer.testing import CliRunner

from cellbook.cells import CellSet
from cellbook.cli import app as command
from cellbook.configure import configure, restore
from cellbook.errors import CellbookError
from cellbook.methods import fair_cae
from cellbook.methods.fair_cae import MODELS, PENALTIES, PRESETS, Config, objective, phase
from cellbook.methods.fair_cae.confounder import expected, labels, read_column
from cellbook.methods.fair_cae.networks import Adversary, Decoder, Doubling, Encoder, coordinates
from cellbook.pixels import channel_max, gather
from cellbook.runs import Run
from cellbook.training import Batch, State, train, train_run
from cellbook.training.checkpoints import CHECKPOINT

CPU = torch.device("cpu")
TINY = {
    "pretraining": 2,
    "teaching": 2,
    "rounds": 2,
    "batch": 6,
    "teaching_batch": 5,
    "pool": 2,
    "latent": 8,
    "width": 1,
    "hidden": (7, 5),
    "lam": 0.3,
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells():
    """Blobs of three weeks, brighter on one side from week to week; controls in all weeks, drugs in one or two."""
    n = 48
    rng = np.random.default_rng(0)
    week = np.arange(n) % 3
    y, x = np.mgrid[-16:16, -16:16]
    blob = np.exp(-(y**2 + x**2) / (2 * rng.uniform(4, 9, n)[:, None, None, None] ** 2)) * [[[1.0]], [[0.7]]]
    tilt = 1 + 0.02 * (week - 1)[:, None, None, None] * x
    images = (40_000 * blob * tilt + rng.integers(0, 2000, (n, 2, 32, 32))).astype(np.uint16)
    compound = np.where(np.arange(n) < 18, "DMSO", np.where(week < 2, "taxol", "emetine"))
    table = pd.DataFrame(
        {
            "Metadata_compound": compound,
            "Metadata_batch": np.array(["Week1", "Week2", "Week3"])[week],
            "truth_delay": (0.3 * week + rng.random(n)).astype(np.float32),
        }
    )
    return CellSet(images, table, ("DNA", "Actin"), 0.5)


def started(cells, seed=0, **changes):
    torch.manual_seed(seed)
    return fair_cae.begin(Config(**{**TINY, "dropout": 0.0, **changes}), cells, CPU)


def a_batch(state, cells, t):
    rows = fair_cae.draw(state, t)
    return Batch(gather(cells.to(CPU), rows), rows)


def weights(state):
    return {f"{n}.{k}": v.clone() for n, net in state.networks.items() for k, v in net.named_parameters()}


def size(network):
    return sum(p.numel() for p in network.parameters())


def test_the_networks_have_the_published_numbers_of_parameters():
    assert size(Encoder()) == 16_952_832
    assert size(Decoder()) == 17_450_688
    assert size(Adversary()) == 2_797_866
    assert size(Encoder(deep=True)) == size(Encoder())  # activations have none


def test_every_layer_has_the_published_size():
    seen = []
    networks = Encoder(width=16), Decoder(width=16)
    for network in networks:
        for conv in network.convs:
            conv.register_forward_hook(lambda _m, x, y: seen.append((tuple(x[0].shape[1:]), tuple(y.shape[1:]))))
    z = networks[0](torch.rand(1, 3, 128, 128))
    assert z.shape == (1, 2048)
    assert [a for a, _ in seen] == [(6, 128, 128), (16, 64, 64), (32, 32, 32), (64, 16, 16)]
    assert seen[-1][1] == (128, 8, 8)
    seen.clear()
    image = networks[1](z)
    assert image.shape == (1, 3, 128, 128)
    assert 0 <= image.min() <= image.max() <= 1
    assert seen[0][0] == (128, 8, 8)
    assert [b for _, b in seen] == [(256, 16, 16), (128, 32, 32), (64, 64, 64), (3, 128, 128)]
    assert [tuple(layer.weight.shape) for layer in [*Adversary().layers, Adversary().answer]] == [
        (1024, 2048),
        (512, 1024),
        (256, 512),
        (128, 256),
        (64, 128),
        (32, 64),
        (10, 32),
    ]


@pytest.mark.parametrize("side", [(16, 16), (48, 32), (80, 80)])
def test_any_crop_will_do_whose_sides_are_multiples_of_16(side):
    x = torch.rand(2, 4, *side)
    z = Encoder(4, side, 5, 1)(x)
    assert z.shape == (2, 5)
    assert Decoder(4, side, 5, 1)(z).shape == x.shape


def test_convolutions_start_xavier_normal():
    for conv in (Encoder(latent=4).convs[3], Decoder(latent=4).convs[1]):
        fan = conv.kernel_size[0] ** 2 * (conv.in_channels + conv.out_channels)
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.02)
        assert conv.bias is None


def test_coordinates_are_centred_and_each_runs_along_its_own_side():
    x, y, r = coordinates(32, 48)[0]
    assert x.shape == (32, 48)
    for ends in (x[:, [0, -1]].T, y[[0, -1]]):
        assert (ends[0] == -1).all()
        assert (ends[1] == 1).all()
    torch.testing.assert_close(r, r.flip(0))
    torch.testing.assert_close(r, r.flip(1))
    assert r.argmin() in (15 * 48 + 23, 15 * 48 + 24, 16 * 48 + 23, 16 * 48 + 24)
    assert r[0, 0].item() == pytest.approx(math.sqrt(2))


def test_the_published_encoder_is_one_affine_map_and_the_deep_one_is_not():
    torch.manual_seed(0)
    a, b, c = torch.rand(3, 2, 3, 32, 32, dtype=torch.float64)
    for deep in (False, True):
        encoder = Encoder(3, (32, 32), 6, 2, deep=deep).double()
        encoder.code.register_forward_hook(lambda _m, _x, y: y)
        bent = (encoder(a + b - c) - (encoder(a) + encoder(b) - encoder(c))).abs().max().item()
        spread = encoder(a).std().item()
        assert (bent > 1e-3 * spread) if deep else (bent < 1e-6 * spread)


def test_the_decoder_starts_with_a_relu_and_is_deep_only_if_asked_to():
    torch.manual_seed(1)
    decoder = Decoder(3, (16, 16), 4, 1)
    z = torch.tensor([[-1.0, 2.0, -3.0, 0.5]])
    torch.testing.assert_close(decoder(z), decoder(z.clamp_min(0)))
    x = functional.relu(decoder.code(functional.relu(z))).view(1, 8, 1, 1)
    for deep in (False, True):
        decoder.deep, y = deep, x
        for k, conv in enumerate(decoder.convs):
            y = functional.conv2d(y.repeat_interleave(2, -1).repeat_interleave(2, -2), conv.weight, padding=1)
            y = functional.relu(y) if deep and k < 3 else y
        torch.testing.assert_close(decoder(z), torch.sigmoid(y))


def test_a_doubling_convolution_is_one_behind_an_image_doubled_in_size_and_so_is_its_gradient():
    torch.manual_seed(2)
    fast = Doubling(3, 5).double()
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    mine, his = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = fast.weight.detach().clone().requires_grad_()
    got = fast(mine)
    want = functional.conv2d(functional.interpolate(his, scale_factor=2), weight, padding=1)
    torch.testing.assert_close(got, want)
    asked = torch.randn_like(want)
    ours = torch.autograd.grad((got * asked).sum(), [mine, fast.weight])
    torch.testing.assert_close(ours, torch.autograd.grad((want * asked).sum(), [his, weight]))


def test_losses_agree_with_loops_over_cells():
    rng = np.random.default_rng(2)
    x, y = rng.random((4, 2, 3, 3)), rng.random((4, 2, 3, 3))
    logits, z = rng.normal(0, 2, (4, 3)), rng.normal(5, 2, (4, 6))
    s, share = np.eye(3)[[0, 2, 2, 1]], np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1], [0.2, 0.3, 0.5]])
    square = sum((a - b) ** 2 for a, b in zip(x.flat, y.flat, strict=True)) / x.size
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -sum(np.log(p[i, s[i].argmax()]) for i in range(4)) / 4
    divergence = sum(q * np.log(q / p[i, j]) for i in range(4) for j, q in enumerate(share[i]) if q > 0) / 4
    gaps = [[((z[i] - z[j]) ** 2).sum() for j in range(4)] for i in range(4)]
    scale = sum(map(sum, gaps)) / 12
    rest = s - share
    kernel = sum(np.exp(-gaps[i][j] / scale) * rest[i] @ rest[j] for i in range(4) for j in range(4) if i != j) / 12
    t = torch.from_numpy
    assert objective.reconstruction_loss(t(x), t(y)).item() == pytest.approx(square)
    assert objective.reading_loss(t(logits), t(s)).item() == pytest.approx(entropy)
    assert objective.confusion_loss(t(logits), t(share)).item() == pytest.approx(divergence)
    assert objective.kernel_loss(t(z), t(rest)).item() == pytest.approx(kernel)
    assert objective.kernel_loss(t(100 * z - 7), t(rest)).item() == pytest.approx(kernel)
    guess = -sum(np.log(share[i, s[i].argmax()]) for i in (1, 2, 3)) / 4 - np.log(0.5) / 4
    assert objective.chance(t(share), t(s)).item() == pytest.approx(guess)
    answer, value = t(logits[:, :1]), t(y[:, 0, 0, :1])
    squared = np.mean((logits[:, 0] - y[:, 0, 0, 0]) ** 2)
    assert objective.reading_loss(answer, value).item() == pytest.approx(squared)
    assert objective.confusion_loss(answer, value).item() == pytest.approx(squared)
    assert objective.confusion_loss(t(np.log(share + 1e-300)), t(share)).item() == pytest.approx(0, abs=1e-9)
    assert objective.reading_loss(torch.zeros(4, 10), torch.eye(10)[:4]).item() == pytest.approx(math.log(10))


def test_the_kernel_term_is_zero_on_average_for_codes_that_say_nothing_and_else_is_not():
    generator = torch.Generator().manual_seed(3)
    nothing, something = [], []
    for _ in range(300):
        codes, s = torch.randn(20, 5, generator=generator), torch.randint(3, (20,), generator=generator)
        rest = torch.eye(3)[s] - 1 / 3
        nothing.append(objective.kernel_loss(codes, rest).item())
        something.append(objective.kernel_loss(codes + s[:, None], rest).item())
    assert abs(np.mean(nothing)) < 4 * np.std(nothing) / math.sqrt(300)
    assert np.mean(something) > 20 * np.std(something) / math.sqrt(300)


def test_equal_codes_give_a_finite_kernel_term_and_gradient():
    z = torch.ones(4, 3, requires_grad=True)
    loss = objective.kernel_loss(z, torch.eye(2)[[0, 1, 0, 1]] - 0.5)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_images_are_mirrored_in_either_way_and_channels_change_alike():
    torch.manual_seed(4)
    x = torch.rand(1, 2, 4, 4).expand(64, -1, -1, -1)
    mirrored = objective.augmented(x, 0.0, 0.0)
    ways = [x[0], x[0].flip(-1), x[0].flip(-2), x[0].flip(-1, -2)]
    count = [sum(torch.allclose(m, way) for m in mirrored) for way in ways]
    assert sum(count) == 64
    assert min(count) >= 6
    grey = torch.full((200, 2, 4, 4), 0.5)
    brighter = objective.augmented(grey, 0.03, 0.0)
    torch.testing.assert_close(brighter[:, 0], brighter[:, 1])
    assert 0.485 <= brighter.min() < 0.4875
    assert 0.5125 < brighter.max() <= 0.515
    x = 0.25 + 0.5 * x  # away from the ends, where values are clipped
    steeper = objective.augmented(x, 0.0, 0.05)
    torch.testing.assert_close(steeper.mean((-2, -1)), x.mean((-2, -1)))
    factor = steeper.std((-2, -1)) / x.std((-2, -1))
    torch.testing.assert_close(factor[:, 0], factor[:, 1])
    assert 0.95 <= factor.min() < 0.96
    assert 1.04 < factor.max() <= 1.0501


# --- the confounder ------------------------------------------------------------------------------------------------


def test_what_is_expected_without_the_code_counts_classes_equally(cells):
    s, groups = read_column(cells.table, "Metadata_batch")
    np.testing.assert_array_equal(s, np.eye(3)[np.arange(48) % 3])
    few = np.delete(np.arange(48), np.arange(0, 48, 6))  # half as many cells of week 1
    np.testing.assert_allclose(expected(s[few], np.zeros(len(few), int), groups[few]), 1 / 3)
    known = np.array([0, 0, 0, 1, 1])
    s, groups = np.eye(2)[[0, 0, 1, 0, 0]], np.array([0, 0, 1, 0, 0])
    # Of class 0 each of four cells is drawn with 1/8, of class 1 the one cell with 1/2.
    share = (1 / 4) / (1 / 4 + 1 / 2)
    np.testing.assert_allclose(expected(s, known, groups)[:3], [[share, 1 - share]] * 3)
    np.testing.assert_allclose(expected(s, known, groups)[3:], [[1, 0]] * 2)


def test_numbers_are_standardised_and_drawn_alike_and_whole_numbers_are_classes(cells):
    s, groups = read_column(cells.table, "truth_delay")
    assert s.shape == (48, 1)
    assert (s.mean(), s.std()) == pytest.approx((0, 1), abs=1e-6)
    assert not groups.any()
    assert read_column(cells.table.assign(plate=np.arange(48) // 12), "plate")[0].shape == (48, 4)


def test_only_what_the_treatment_leaves_open_is_left_to_be_read(cells):
    made, _ = labels(Config(conditional=True), cells, CPU)
    assert made["treatment"].shape == (48, 3)
    assert (made["treatment"].sum(1) == 1).all()
    rest = (made["confounder"] - made["expected"]).abs().amax(1).numpy()
    alone = (cells.table["Metadata_compound"] == "emetine").to_numpy()  # in one week
    assert (rest[alone] == 0).all()
    assert (rest[~alone] > 0.3).all()
    free, _ = labels(Config(), cells, CPU)
    assert free["treatment"].shape == (48, 0)
    torch.testing.assert_close(free["expected"], torch.full((48, 3), 1 / 3))


def test_a_confounder_that_cannot_be_removed_is_refused_by_name(cells):
    def begun(values, name="given"):
        table = cells.table.assign(given=values)
        return fair_cae.begin(Config(**TINY, confounder=name), replace(cells, table=table), CPU)

    gaps = np.where(np.arange(48) < 5, None, cells.table["Metadata_batch"])
    for values, message in (
        ("Week1", r"confounder='given' is Week1 in all 48 cells"),
        (0.5, r"confounder='given' is 0.5 in all 48 cells"),
        (gaps, r"confounder='given' is missing or infinite in 5 of 48 cells"),
        (np.where(np.arange(48) < 2, np.inf, np.arange(48.0)), r"infinite in 2 of 48"),
        (np.arange(48), r"confounder='given' has 48 classes for 48 cells"),
    ):
        with pytest.raises(CellbookError, match=message):
            begun(values)
    with pytest.raises(CellbookError, match="is no column of the cells: did you mean 'Metadata_batch'"):
        begun(0.0, "Metadata_bach")


def test_a_confounder_that_is_a_function_of_the_treatment_is_warned_of(cells):
    with pytest.warns(UserWarning, match="constant within each of the 3 treatments: biology and confounder"):
        started(replace(cells, table=cells.table.assign(given=cells.table["Metadata_compound"])), confounder="given")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        started(cells)


# --- steps ---------------------------------------------------------------------------------------------------------


def test_phases_follow_each_other():
    config = Config(**TINY)
    assert [phase(config, t) for t in range(config.iterations)] == ["A", "A", "B", "B", "C", "C"]
    without = Config(**TINY, penalty="kernel")
    assert [phase(without, t) for t in range(without.iterations)] == ["A", "A", "C", "C"]


def test_a_round_draws_what_the_adversary_learns_from_and_one_batch_more(cells):
    for changes, shape in (
        ({}, (3, 6)),
        ({"updates": 1}, (2, 6)),
        ({"penalty": "reversal"}, (1, 6)),
        ({"penalty": "kernel"}, (1, 6)),
    ):
        state = started(cells, **changes)
        assert fair_cae.draw(state, 0).shape == (6,)
        assert fair_cae.draw(state, 5).shape == shape
    assert fair_cae.draw(started(cells), 2).shape == (5,)
    few = cells.select(np.r_[0:48:3, 1, 2])  # sixteen of week 1, one of each other
    rows = fair_cae.draw(started(few, batch=3000), 0).numpy()
    share = few.table["Metadata_batch"].iloc[rows].value_counts(normalize=True)
    np.testing.assert_allclose(share.to_numpy(), 1 / 3, atol=0.05)


def test_pretraining_moves_the_autoencoder_alone_as_published(cells):
    state = started(cells, pretraining_decay=0.01, brightness=0.0, contrast=0.0, pretraining_rate=1e-3)
    nets, before = deepcopy(state.networks), weights(state)
    theta = [*nets["encoder"].parameters(), *nets["decoder"].parameters()]
    adam = torch.optim.Adam(theta, lr=1e-3, weight_decay=0.01, amsgrad=True)
    for t in range(3):
        batch = a_batch(state, cells, 0)
        torch.manual_seed(t)
        losses = fair_cae.step(state, batch, 0)
        torch.manual_seed(t)
        x = objective.augmented(channel_max(batch.images), 0.0, 0.0)
        loss = functional.mse_loss(nets["decoder"](nets["encoder"](x)), x)
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert losses["reconstruction"].item() == pytest.approx(loss.item(), rel=1e-4)
        assert losses["adversary"].item() == pytest.approx(math.log(3), abs=0.4)  # which has learned nothing
    for name, value in weights(state).items():
        network, _, key = name.partition(".")
        if network == "adversary":
            assert torch.equal(value, before[name])
        else:
            torch.testing.assert_close(value, dict(nets[network].named_parameters())[key], rtol=1e-3, atol=1e-5)


def test_teaching_is_plain_descent_of_the_adversary_and_never_reaches_the_encoder(cells):
    state = started(cells, teaching_rate=0.2, teaching_decay=0.05)
    before, judge = weights(state), deepcopy(state.networks["adversary"])
    batch = a_batch(state, cells, 2)
    losses = fair_cae.step(state, batch, 2)
    z = state.networks["encoder"](channel_max(batch.images)).detach()
    week = torch.from_numpy(np.arange(48) % 3)[batch.rows]
    loss = functional.cross_entropy(judge(z, z[:, :0]), week)
    loss.backward()
    assert losses["adversary"].item() == pytest.approx(loss.item(), rel=1e-5)
    for (name, old), new in zip(judge.named_parameters(), state.networks["adversary"].parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.2 * (old.grad + 0.05 * old), msg=name, rtol=1e-4, atol=1e-6)
    for name, value in weights(state).items():
        if not name.startswith("adversary"):
            assert torch.equal(value, before[name])
    assert all(p.grad is None for name in ("encoder", "decoder") for p in state.networks[name].parameters())


SETTINGS = [
    {},
    {"model": "deep", "updates": 5},
    {"conditional": True, "updates": 3},
    {"confounder": "truth_delay", "updates": 3},
    {"penalty": "confusion", "updates": 3},
    {"penalty": "confusion", "conditional": True, "updates": 2},
    {"penalty": "confusion", "confounder": "truth_delay", "updates": 2},
    {"penalty": "reversal"},
    {"penalty": "reversal", "updates": 2, "confounder": "truth_delay"},
    {"penalty": "kernel"},
    {"penalty": "kernel", "conditional": True},
    {"penalty": "kernel", "confounder": "truth_delay", "conditional": True},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())) or "published")
def test_a_round_is_the_game_written_out(cells, changes):
    state = started(cells, **{"updates": None if changes.get("penalty") == "kernel" else 4, **changes})
    config = state.config
    nets, batch = deepcopy(state.networks), a_batch(state, cells, 5)
    losses = fair_cae.step(state, batch, 5)

    theta = [*nets["encoder"].parameters(), *nets["decoder"].parameters()]
    adams = {"theta": torch.optim.Adam(theta, lr=1e-3, amsgrad=True)}
    if "adversary" in nets:
        adams["w"] = torch.optim.Adam(nets["adversary"].parameters(), lr=1e-3, amsgrad=True)
    known = labels(config, cells, CPU)[0]

    def read(z, rows):
        answer = nets["adversary"](z, known["treatment"][rows])
        if config.confounder == "truth_delay":
            return functional.mse_loss(answer, known["confounder"][rows]), functional.mse_loss(
                answer, known["expected"][rows]
            )
        return functional.cross_entropy(answer, torch.from_numpy(np.arange(48) % 3)[rows]), functional.kl_div(
            answer.log_softmax(1), known["expected"][rows], reduction="batchmean"
        )

    frozen = [nets["encoder"](channel_max(images)).detach() for images in batch.images[:-1]]
    for k in range(config.adversary_updates):
        adams["w"].zero_grad()
        read(frozen[k % len(frozen)], batch.rows[k % len(frozen)])[0].backward()
        adams["w"].step()
    x, rows = channel_max(batch.images[-1]), batch.rows[-1]
    z = nets["encoder"](x)
    loss = functional.mse_loss(nets["decoder"](z), x)
    if config.penalty == "kernel":
        rest = known["confounder"][rows] - known["expected"][rows]
        total = loss + config.lam * objective.kernel_loss(z, rest)
    else:
        reading, confusion = read(z, rows)
        total = loss + config.lam * (confusion if config.penalty == "confusion" else -reading)
    wanted = torch.autograd.grad(total, theta, retain_graph=True)
    if config.penalty == "reversal":  # by turning the gradient round where it enters the encoder
        adams["w"].zero_grad()
        turned = z.detach().requires_grad_()
        read(turned, rows)[0].backward()
        from_image = torch.autograd.grad(loss, theta, retain_graph=True)
        from_game = torch.autograd.grad(z, theta, -config.lam * turned.grad, allow_unused=True)
        wanted = [a if b is None else a + b for a, b in zip(from_image, from_game, strict=True)]
        adams["w"].step()
    for p, gradient in zip(theta, wanted, strict=True):
        p.grad = gradient
    adams["theta"].step()
    mine = [*state.networks["encoder"].parameters(), *state.networks["decoder"].parameters()]
    for ours, theirs in zip(mine, wanted, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item() + 1e-9)
    for name, network in state.networks.items():
        for ours, theirs in zip(network.parameters(), nets[name].parameters(), strict=True):
            # Adam's first step is as long for a gradient of rounding errors as for any other.
            settled = theirs.grad.abs() > 1e-6 if name != "adversary" else torch.ones_like(theirs, dtype=torch.bool)
            torch.testing.assert_close(ours[settled], theirs[settled], rtol=1e-3, atol=2e-5)
    assert losses["reconstruction"].item() == pytest.approx(loss.item(), rel=1e-4)
    beside = {"kernel"} if config.penalty == "kernel" else {"adversary", "confusion"}
    assert set(losses) == {"reconstruction"} | beside


def test_lambda_weighs_the_penalty_and_nothing_else(cells):
    found = {}
    for lam in (0.0, 1.0, 3.0, -1.0):
        state = started(cells, lam=lam, updates=2)
        fair_cae.step(state, a_batch(state, cells, 5), 5)
        found[lam] = {n: [p.grad.clone() for p in state.networks[n].parameters()] for n in state.networks}
    assert all(torch.equal(a, b) for a, b in zip(found[0.0]["decoder"], found[3.0]["decoder"], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[0.0]["adversary"], found[3.0]["adversary"], strict=True))
    for none, one, three, less in zip(*(found[lam]["encoder"] for lam in (0.0, 1.0, 3.0, -1.0)), strict=True):
        torch.testing.assert_close(three - none, 3 * (one - none), rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(less - none, none - one, rtol=1e-3, atol=1e-7)


def test_dropout_is_on_while_the_adversary_learns_and_off_while_it_judges(cells, monkeypatch):
    seen = []
    forward = Adversary.forward
    monkeypatch.setattr(Adversary, "forward", lambda *a: (seen.append(a[3]), forward(*a))[1])
    state = started(cells, dropout=0.25, updates=2)
    for t in (0, 2, 4):
        fair_cae.step(state, a_batch(state, cells, t), t)
    assert seen == [0.0, 0.25, 0.25, 0.25, 0.0]
    z = torch.ones(1, 2000)
    judge = Adversary(2, 2000, (4000,))
    kept = judge.layers[0](z).relu()
    judge.answer.weight.data.fill_(0).add_(1)
    dropped = torch.stack([forward(judge, z, z[:, :0], 0.25)[0, 0] for _ in range(20)])
    assert dropped.std() > 0
    assert dropped.mean().item() == pytest.approx((kept.sum() + judge.answer.bias[0]).item(), rel=0.05)


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())) or "published")
def test_nothing_waits_for_the_device_in_any_phase(cells, monkeypatch, changes):
    """What is recorded may not look at a value: t is a tensor, and all ways to look are barred."""
    state = started(cells, dropout=0.1, **{"updates": None if changes.get("penalty") == "kernel" else 3, **changes})
    images = cells.to(CPU)

    def refused(*_):
        raise AssertionError("a step looked at a value on the device")

    for name in ("item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "tolist", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    names, shapes = set(), {}
    for t in range(state.config.iterations):
        state.phase = phase(state.config, t)
        rows = fair_cae.draw(state, torch.tensor(t))
        losses = fair_cae.step(state, Batch(gather(images, rows), rows), torch.tensor(t))
        names.add(tuple(losses))
        shapes.setdefault(state.phase, set()).add(tuple(rows.shape))
    monkeypatch.undo()
    assert len(names) == 1  # the history has one set of columns
    assert all(len(found) == 1 for found in shapes.values())
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())) or "published")
def test_a_step_needs_no_values_and_nothing_that_lies_elsewhere(cells, monkeypatch, changes):
    """On torch's device "meta" tensors have shapes only, and meet no tensor of another device."""
    meta = torch.device("meta")
    for kind in (torch.optim.Adam, torch.optim.SGD):  # whose fused kernels are not there
        plain = kind.__init__
        monkeypatch.setattr(kind, "__init__", lambda self, p, lr, plain=plain, **_: plain(self, p, lr=lr))
    monkeypatch.setattr(torch, "Generator", lambda _: SimpleNamespace(manual_seed=lambda _: None))
    monkeypatch.setattr(State, "autocast", lambda _: nullcontext())
    updates = None if changes.get("penalty") == "kernel" else 3
    state = fair_cae.begin(Config(**{**TINY, "updates": updates, **changes}), cells, meta)
    for t in range(state.config.iterations):
        state.phase = phase(state.config, t)
        rows = fair_cae.draw(state, torch.tensor(t, device=meta))
        images = gather(torch.empty(cells.images.shape, dtype=torch.uint16, device=meta), rows)
        losses = fair_cae.step(state, Batch(images, rows), torch.tensor(t, device=meta))
        assert all(loss.is_meta and loss.shape == () for loss in losses.values())


def test_in_bf16_a_step_goes_about_where_one_in_float32_goes(cells):
    found = {}
    for bf16 in (False, True):
        state = started(cells, width=4, latent=16, batch=24, updates=3, model="deep")
        state.bf16 = bf16
        torch.manual_seed(5)
        losses = fair_cae.step(state, a_batch(state, cells, 5), 5)
        assert losses["reconstruction"].dtype == torch.float32
        found[bf16] = torch.cat([p.grad.flatten() for net in state.networks.values() for p in net.parameters()])
    assert torch.cosine_similarity(found[False], found[True], dim=0) > 0.95


# --- trainings -----------------------------------------------------------------------------------------------------


def test_an_interrupted_training_ends_like_an_undisturbed_one(cells, tmp_path, monkeypatch):
    config = Config(**TINY, updates=3)
    whole = train(fair_cae, config, cells, tmp_path / "whole", "cpu")
    for at in (1, 3, 5):  # in each phase
        monkeypatch.setattr(fair_cae, "step", lambda s, b, t, at=at: stop() if t == at else objective.step(s, b, t))
        with pytest.raises(KeyboardInterrupt):
            train(fair_cae, config, cells, tmp_path / "cut", "cpu", checkpoint_seconds=0)
        assert (tmp_path / "cut" / CHECKPOINT).exists()
        monkeypatch.undo()
    train(fair_cae, config, cells, tmp_path / "cut", "cpu")
    for product in ("history.parquet", "weights.safetensors"):
        assert (tmp_path / "cut" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()
    assert whole.finite() is None


def stop():
    raise KeyboardInterrupt


def test_an_adversary_that_diverges_is_one_error_that_names_it(cells, tmp_path):
    config = Config(**{**TINY, "teaching": 60}, teaching_rate=1e12)
    with pytest.raises(CellbookError, match=r"adversary is (nan|inf) at step|weights of adversary are no"):
        train(fair_cae, config, cells, tmp_path, "cpu")


@pytest.mark.parametrize(("confounder", "at_chance"), [("Metadata_batch", "1.099"), ("truth_delay", "1")])
def test_an_adversary_that_is_worse_than_chance_in_the_end_is_warned_of(cells, tmp_path, confounder, at_chance):
    state = started(cells, confounder=confounder)
    answer = state.networks["adversary"].answer
    answer.weight.data.zero_()
    answer.bias.data.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fair_cae.finish(state, cells, tmp_path)
        fair_cae.finish(started(cells, penalty="kernel"), cells, tmp_path)
    answer.bias.data[0] = 9
    with pytest.warns(UserWarning, match=f"{at_chance} being chance.*{confounder} may still be in them"):
        fair_cae.finish(state, cells, tmp_path)


def test_a_few_steps_bring_reconstructions_closer(cells, tmp_path):
    for model in MODELS:
        config = Config(**{**TINY, "pretraining": 60, "rounds": 0, "width": 2}, model=model, pretraining_rate=1e-2)
        train(fair_cae, config, cells, tmp_path / model, "cpu")
        loss = pd.read_parquet(tmp_path / model / "history.parquet")["reconstruction"].iloc[:60]
        assert loss.iloc[-5:].mean() < 0.7 * loss.iloc[:5].mean()


@pytest.fixture(scope="module")
def planted():
    """One bright square in half of the cells, and a stripe along the edge that is brighter in one week."""
    rng = np.random.default_rng(7)
    week, square = np.arange(400) % 2, np.arange(400) // 2 % 2
    images = rng.integers(0, 8000, (400, 1, 16, 16))
    images[:, 0, 5:11, 5:11] += 22_000 * square[:, None, None]
    stripe = 9000 + 3000 * rng.normal(size=400) + 9000 * week
    images[:, 0, :4] += stripe.clip(0).astype(int)[:, None, None]
    images[:, 0, -1, -1] = 45_000
    table = pd.DataFrame({"Metadata_compound": "DMSO", "Metadata_batch": week.astype(str), "square": square})
    return CellSet(images.astype(np.uint16), table, ("DNA",), 0.5)


def share(codes, label):
    """Of the variance of codes, what lies between the classes of a label."""
    codes, classes = codes - codes.mean(0), np.unique(label)
    between = sum((label == k).mean() * np.square(codes[label == k].mean(0)).sum() for k in classes)
    return between / np.square(codes).sum(1).mean()


@pytest.mark.parametrize(
    ("penalty", "lam"), [("adversary", 0.1), ("reversal", 0.02), ("confusion", 0.1), ("kernel", 1.0)]
)
def test_the_game_takes_the_week_out_of_the_codes_and_leaves_the_cells_in(planted, penalty, lam):
    changes = {"latent": 8, "width": 2, "hidden": (16,), "batch": 48, "teaching_batch": 64, "pool": 4}
    changes |= {"pretraining": 80, "teaching": 30, "rounds": 120, "pretraining_rate": 6e-3, "game_rate": 6e-3}
    changes |= {"updates": 3} if PENALTIES[penalty].updates else {}
    found = {}
    for weight in (0.0, lam):
        state = started(planted, **{**changes, "penalty": penalty, "lam": weight, "dropout": 0.1})
        for t in range(state.config.iterations):
            fair_cae.step(state, a_batch(state, planted, t), t)
        codes = fair_cae.encode(state, planted)
        found[weight] = {name: share(codes, planted.table[name].to_numpy()) for name in ("Metadata_batch", "square")}
    assert found[0.0]["Metadata_batch"] > 0.05
    assert found[lam]["Metadata_batch"] < 0.5 * found[0.0]["Metadata_batch"], found
    assert found[lam]["square"] > found[0.0]["square"], found


@pytest.fixture(scope="module")
def screen():
    """A simulated plate of each of two weeks, few cells, crops of 32 pixels."""
    from cellbook.screens.simulator import SimulatedScreen, plate_map, simulate

    config = SimulatedScreen(cells=2, wells=1, controls=2, crop=32)
    wells = plate_map(config)
    plates = wells.groupby("Metadata_batch")["Metadata_plate"].first().tolist()[:2]
    return simulate(config, plates=plates)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_model_and_penalty_trains_on_a_simulated_screen(screen, tmp_path, model, penalty):
    updates = PRESETS["smoke"].updates if PENALTIES[penalty].adversary else None
    for changes in ({}, {"conditional": True}, {"confounder": "truth_delay"}):
        config = replace(PRESETS["smoke"], model=model, penalty=penalty, updates=updates, **changes)
        run = train_run(fair_cae, config, screen, tmp_path, "cpu")
        history = pd.read_parquet(run.path("history.parquet"))
        assert len(history) == config.iterations
        codes = pd.read_parquet(run.path("codes.parquet"))
        assert [name for name in codes if not name.startswith("Metadata_")] == [f"z{i}" for i in range(16)]
        game = history[history["step"] > history["step"].max() - config.rounds]  # what is not there is no loss of it
        assert np.isfinite(game[["reconstruction", config.terms.term]]).all(axis=None)
        assert not np.isinf(history.to_numpy()).any()
        assert restore(Config, run.record["config"]) == config


def test_the_command_takes_a_column_of_classes_or_of_numbers(screen, tmp_path):
    screen.save(tmp_path / "own")
    where = ["--cells", str(tmp_path / "own"), "--store", str(tmp_path / "store"), "--device", "cpu"]
    for column, answers in (("Metadata_batch", 2), ("truth_delay", 1)):
        given = ["train", "fair_cae", *where, "--confounder", column, "-p", "preset=smoke"]
        done = CliRunner().invoke(command.app, given)
        assert done.exit_code == 0
        run = Run(Path(done.output.strip().splitlines()[-1]))
        assert run.record["config"]["confounder"] == column
        assert load_file(run.path("weights.safetensors"))["adversary.answer.bias"].shape == (answers,)
    for given, message in (
        (
            ["train", "fair_cae", *where, "--confounder", "x"],
            "confounder='x' is no column of the cells: there are Meta",
        ),
        (["train", "vae_plus", *where, "--confounder", "x"], "no parameter confounder: there is preset, "),
        (["train", "fair_cae", *where, "--confounder", "x", "-p", "confounder=y"], "'confounder' is given twice"),
    ):
        assert message in str(CliRunner().invoke(command.app, given).exception)


def test_codes_do_not_depend_on_which_cells_are_encoded_together(cells, monkeypatch):
    state = started(cells)
    together = fair_cae.encode(state, cells)
    assert together.shape == (48, 8)
    assert together.dtype == np.float32
    assert (together < 0).any()  # as they leave the encoder, before the decoder's ReLU
    monkeypatch.setattr("cellbook.training.codes.BLOCK", 5)
    np.testing.assert_allclose(fair_cae.encode(state, cells), together, rtol=1e-4, atol=1e-5)
    images = fair_cae.reconstruct(state, cells.select([7, 2]))
    assert images.shape == (2, 2, 32, 32)
    np.testing.assert_allclose(images, fair_cae.decode(state, together[[7, 2]]), rtol=1e-4, atol=1e-5)


def test_an_empty_channel_is_no_nan(cells):
    images = cells.images.copy()
    images[:, 1] = 0
    images[3] = 0
    dark = replace(cells, images=images)
    state = started(dark, updates=2)
    for t in range(6):
        losses = fair_cae.step(state, a_batch(state, dark, t), t)
        assert all(loss.isfinite() for loss in losses.values())
    assert np.isfinite(fair_cae.encode(state, dark)).all()


def test_what_cannot_be_meant_is_refused_in_one_sentence(cells):
    for values, message in (
        ({"model": "linear"}, "none of affine, deep"),
        ({"penalty": "mmd"}, "none of adversary, reversal, confusion, kernel"),
        ({"batch": 1}, "batch=1 must be at least 2"),
        ({"pool": 0}, "pool=0 must be at least 1"),
        ({"hidden": ()}, "hidden=()"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"lam": float("nan")}, "lam=nan"),
        ({"game_rate": -1.0}, "game_rate=-1.0"),
        ({"penalty": "kernel", "updates": 3}, "no adversary to update"),
    ):
        with pytest.raises(CellbookError, match=message.replace("(", r"\(").replace(")", r"\)")):
            Config(**values)
    with pytest.raises(CellbookError, match=r"30 x 32 pixels.*multiples of 16"):
        started(replace(cells, images=cells.images[:, :, 1:31]))
    state = started(cells)
    for codes in (np.zeros((2, 5)), np.zeros((0, 8)), np.zeros(8)):
        with pytest.raises(CellbookError, match="one row or more of 8 numbers"):
            fair_cae.decode(state, codes)


def test_the_paper_preset_is_the_paper_and_the_others_only_smaller():
    paper = PRESETS["paper"]
    assert paper == Config()
    epochs = [(200, 1024), (200, 1000)]
    assert [paper.pretraining, paper.teaching] == [n * math.ceil(671_715 / batch) for n, batch in epochs]
    assert (paper.rounds, paper.adversary_updates) == (200, math.ceil(671_715 / 1024))
    assert (paper.pretraining_rate, paper.pretraining_decay) == (1e-4, 1e-6)
    assert (paper.teaching_rate, paper.teaching_decay, paper.game_rate) == (0.1, 1e-3, 1e-3)
    assert PENALTIES["reversal"].updates == PENALTIES["kernel"].updates == 0
    for name in ("smoke", "quick"):
        assert PRESETS[name].iterations < paper.iterations
        assert all(PRESETS[name].lengths)
    given = configure(fair_cae, {"preset": "quick", "penalty": "kernel", "updates": "none", "lam": "3"})
    assert (given.lam, given.lengths) == (3.0, (300, 0, 100))


@pytest.mark.gpu
@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())) or "published")
def test_on_cuda_steps_are_recorded_in_every_phase_and_codes_are_those_of_the_cpu(cells, tmp_path, changes):
    updates = None if changes.get("penalty") == "kernel" else 3
    lengths = {"pretraining": 9, "teaching": 9, "rounds": 9}
    config = Config(**{**TINY, **lengths, "updates": updates, **changes})
    state = train(fair_cae, config, cells, tmp_path, "cuda")
    history = pd.read_parquet(tmp_path / "history.parquet")
    assert len(history) == config.iterations
    assert np.isfinite(history.to_numpy()).all()
    assert (history.drop(columns="step").nunique() > config.iterations - 9).all()  # played steps draw cells anew
    assert state.finite() is None
    on_cpu = started(cells, **changes)
    for name, network in on_cpu.networks.items():
        network.load_state_dict(state.networks[name].state_dict())
    theirs, ours = fair_cae.encode(on_cpu, cells), fair_cae.encode(state, cells)
    np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())
