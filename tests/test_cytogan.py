"""CytoGAN against the paper's numbers, slow loops, finite differences and steps written out by hand."""

import re
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from cellbook.cells import CellSet
from cellbook.configure import configure
from cellbook.errors import CellbookError
from cellbook.methods import cytogan
from cellbook.methods.cytogan import MODELS, PRESETS, Config, losses, networks, objective
from cellbook.methods.cytogan.config import ADVERSARIAL, paper
from cellbook.methods.cytogan.treatments import known
from cellbook.pixels import channel_max, gather
from cellbook.screens.simulator import SimulatedScreen, plate_map, simulate
from cellbook.training import Batch, load_run, train, train_run
from cellbook.training.checkpoints import CHECKPOINT, WEIGHTS, load_course
from cellbook.training.history import History

TINY = {"side": 16, "width": 2, "latent": 5, "batch": 4}
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells():
    """Blobs of three widths, one a treatment; two of these have one compound."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-8:8, -8:8]
    kind = np.arange(24) % 4
    width = np.array([2.0, 3.0, 5.0, 7.0])[kind]
    blob = np.exp(-(y**2 + x**2) / (2 * width[:, None, None, None] ** 2)) * np.array([1.0, 0.5, 0.8])[:, None, None]
    images = (40_000 * blob + rng.integers(0, 4000, (24, 3, 16, 16))).astype(np.uint16)
    compound = np.array(["DMSO", "emetine", "taxol", "taxol"])[kind]
    dose = np.array([0.0, 1.0, 0.1, 10.0])[kind]
    table = pd.DataFrame({"Metadata_compound": compound, "Metadata_concentration": dose})
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.656)


def started(cells, seed=0, **changes):
    torch.manual_seed(seed)
    state = cytogan.begin(Config(**{**TINY, **changes}), cells, CPU)
    state.bf16 = False
    return state


def a_batch(state, cells, t=0):
    rows = cytogan.draw(state, t)
    return Batch(gather(cells.to(CPU), rows), rows)


def weights(state):
    return torch.cat([v.flatten().float() for net in state.networks.values() for v in net.state_dict().values()])


def kinds():
    """Every model, and those that take a condition with one, through an embedding."""
    told = {"condition": "both", "embedding": 3}
    return [{"model": m} for m in MODELS] + [{"model": m, **told} for m in (*ADVERSARIAL, "began")]


def named(changes):
    return "-".join(map(str, changes.values()))


def test_generator_and_discriminator_have_the_published_numbers_of_parameters():
    def size(network):
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        assert size(networks.Generator(3, 96, 32, 100)) == 4_875_267
        assert size(networks.Discriminator(3, 96, 32, 100)) == 4_764_681


@pytest.mark.parametrize("side", [96, 48])
def test_every_layer_has_the_published_size(side):
    def shapes(network):
        return [tuple(h.shape[1:]) for h in network.hidden(torch.empty(2, 3, side, side, device="meta"))]

    with torch.device("meta"):
        players = {model: objective._networks(Config(model, side=side), 3, 0) for model in MODELS}
        z, nothing = torch.empty(2, 100), torch.empty(2, 0)
        for model in (*ADVERSARIAL, "began", "bigan"):
            assert players[model]["generator"](z, nothing).shape == (2, 3, side, side)
        body = [(32 * 2**k, side // 2**k, side // 2**k) for k in range(4)]
        assert shapes(players["lsgan"]["discriminator"]) == body
        began = players["began"]["discriminator"]
        assert shapes(began) == [(n, side // 2**k, side // 2**k) for k, n in enumerate((64, 128, 256, 384), 1)]
        assert began(torch.empty(2, 3, side, side), nothing).shape == (2, 3, side, side)
        assert shapes(players["bigan"]["encoder"]) == [(128 >> k, side >> k, side >> k) for k in range(4)]
        assert players["bigan"]["encoder"].code.in_features == {96: 2304, 48: 576}[side]
        dense = [layer.out_features for layer in players["bigan"]["discriminator"].dense if hasattr(layer, "bias")]
        assert dense == [1024, 1024, 256, 1]
        assert shapes(players["vae"]["encoder"]) == [(128 >> k, side >> k + 1, side >> k + 1) for k in range(3)]
        assert players["vae"]["decoder"](torch.empty(2, 256)).shape == (2, 3, side, side)
        assert shapes(players["ae"]["encoder"]) == [(8, side // 2, side // 2), (8, side // 4, side // 4)]
    assert players["bigan"]["generator"].layers[0].out_features == 128 * (side // 8) ** 2
    convolutions = [m.out_channels for m in players["vae"]["decoder"].modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [64, 128, 3]


def test_losses_agree_with_loops():
    rng = np.random.default_rng(3)
    x, y = rng.random((4, 3, 5, 5)) * 9, rng.random((4, 3, 5, 5))
    outputs, wanted = rng.normal(0, 4, 6), np.array([0, 0, 0, 0.8, 0.93, 1.0])
    mu, logvar = rng.normal(2, 3, (4, 6)), rng.normal(-1, 1, (4, 6))
    entropy = square = absolute = pixel = kl = 0.0
    for out, target in zip(outputs, wanted, strict=True):
        p = 1 / (1 + np.exp(-out))
        entropy -= (target * np.log(p) + (1 - target) * np.log(1 - p)) / 6
        square += (target - out) ** 2 / 6
    for n in range(4):
        pixel += sum((a - b) ** 2 for a, b in zip(x[n].flat, y[n].flat, strict=True)) / 4
        absolute += sum(abs(a - b) for a, b in zip(x[n].flat, y[n].flat, strict=True)) / x.size
        kl += sum(0.5 * (np.exp(v) + m * m - 1 - v) for m, v in zip(mu[n], logvar[n], strict=True)) / 4
    t = torch.from_numpy
    assert losses.cross_entropy(t(outputs), t(wanted)).item() == pytest.approx(entropy)
    assert losses.squared(t(outputs), t(wanted)).item() == pytest.approx(square)
    assert losses.reconstruction(t(x), t(y)).item() == pytest.approx(absolute)
    assert losses.squared_error(t(x), t(y)).item() == pytest.approx(pixel)
    assert losses.divergence(t(mu), t(logvar)).item() == pytest.approx(kl)


def test_targets_of_real_cells_are_smoothed_and_those_of_made_images_are_not():
    torch.manual_seed(0)
    y = losses.targets(2000, 1000, 0.8, CPU)
    assert (y[:1000] == 0).all()
    assert 0.8 <= y[1000:].min() < 0.81
    assert 0.99 < y[1000:].max() <= 1
    assert y[1000:].mean().item() == pytest.approx(0.9, abs=0.005)
    assert (losses.targets(9, 0, 1.0, CPU) == 1).all()


def test_the_gradient_penalty_is_that_of_finite_differences_with_one_share_a_pair():
    rng = np.random.default_rng(4)
    real, made = (torch.from_numpy(rng.normal(size=(3, 2, 2, 2))) for _ in range(2))
    mix = torch.from_numpy(rng.normal(size=(8, 4))).requires_grad_()
    last = torch.from_numpy(rng.normal(size=4))

    def critic(x):
        return torch.sin(x.flatten(1) @ mix) @ last

    def penalty():
        torch.manual_seed(5)
        return losses.gradient_penalty(critic, real, made)

    torch.manual_seed(5)
    share = torch.rand(3, 1, 1, 1).double().numpy()
    expected, h = 0.0, 1e-5
    for n in range(3):
        point = share[n] * real[n].numpy() + (1 - share[n]) * made[n].numpy()
        slopes = []
        for place in np.ndindex(point.shape):
            up, down = point.copy(), point.copy()
            up[place] += h
            down[place] -= h
            values = [critic(torch.from_numpy(v)[None]).item() for v in (up, down)]
            slopes.append((values[0] - values[1]) / (2 * h))
        expected += (np.sqrt(np.square(slopes).sum()) - 1) ** 2 / 3
    assert penalty().item() == pytest.approx(expected, rel=1e-6)
    (slope,) = torch.autograd.grad(penalty(), mix)  # what the critic learns from it
    for place in ((0, 0), (5, 2)):
        values = []
        for change in (h, -h):
            with torch.no_grad():
                mix[place] += change
            values.append(penalty().item())
            with torch.no_grad():
                mix[place] -= change
        assert slope[place].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_a_critic_without_slope_has_a_penalty_of_one_and_no_nan():
    flat = torch.zeros(12, requires_grad=True)
    value = losses.gradient_penalty(lambda x: x.flatten(1) @ flat, torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2))
    assert value.item() == pytest.approx(1, abs=1e-5)
    assert torch.autograd.grad(value, flat)[0].isfinite().all()


@pytest.mark.parametrize("model", ADVERSARIAL)
def test_a_step_is_that_written_out_by_hand(cells, model):
    n, d, rate = TINY["batch"], TINY["latent"], 0.05
    state = started(cells, model=model, input_noise=0.0, smoothing=1.0, critic_steps=2)
    judge, maker = (deepcopy(state.networks[name]) for name in ("discriminator", "generator"))
    for name in state.optimisers:  # Adam's first steps are as long as its rate also where a slope is 0 but for rounding
        state.optimisers[name] = torch.optim.SGD(state.networks[name].parameters(), lr=rate)
    state.config = replace(state.config, critic_rate=rate, generator_rate=rate)
    batch = a_batch(state, cells)
    torch.manual_seed(9)
    found = cytogan.step(state, batch, 0)

    def move(network, objective):
        slopes = torch.autograd.grad(objective, list(network.parameters()))
        for p, slope in zip(network.parameters(), slopes, strict=True):
            p.data -= rate * slope

    torch.manual_seed(9)
    nothing = torch.empty(n, 0)
    for images in batch.images:
        real = 2 * channel_max(images) - 1
        made = maker(torch.randn(n, d), nothing).detach()
        d_made, d_real = judge(made, nothing), judge(real, nothing)
        if model in ("dcgan", "lsgan"):
            torch.rand(n)  # targets, which are all 1 here
        if model == "dcgan":
            d_loss = (functional.softplus(d_made).mean() + functional.softplus(-d_real).mean()) / 2
        elif model == "lsgan":
            d_loss = (d_made.square().mean() + (1 - d_real).square().mean()) / 2
        else:
            d_loss = d_made.mean() - d_real.mean()
        total = d_loss
        if model == "wgan_gp":
            share = torch.rand(n, 1, 1, 1)
            between = (share * real + (1 - share) * made).requires_grad_()
            (slope,) = torch.autograd.grad(judge(between, nothing).sum(), between, create_graph=True)
            total = d_loss + 10 * sum((s.norm() - 1) ** 2 for s in slope) / n
        move(judge, total)
        if model == "wgan":
            for p in judge.parameters():
                p.data = p.data.clip(-0.01, 0.01)
    d_made = judge(maker(torch.randn(n, d), nothing), nothing)
    wanted = {"dcgan": functional.softplus(-d_made), "lsgan": (1 - d_made).square()}.get(model, -d_made).mean()
    move(maker, wanted)
    assert found["discriminator"].item() == pytest.approx(d_loss.item(), rel=1e-4, abs=1e-7)
    assert found["generator"].item() == pytest.approx(wanted.item(), rel=1e-3, abs=1e-6)
    for name, network in (("discriminator", judge), ("generator", maker)):
        for ours, theirs in zip(state.networks[name].parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_every_model_has_the_optimisers_of_the_table(cells):
    for model in MODELS:
        state = started(cells, model=model)
        rates = {name: o.param_groups[0]["lr"] for name, o in state.optimisers.items()}
        wanted = {"discriminator": MODELS[model].critic_rate, "generator": MODELS[model].generator_rate}
        if model in ("vae", "ae"):
            wanted = {"autoencoder": 1e-3}
        assert rates == wanted | ({"encoder": 7e-5} if model == "bigan" else {})
        kind = torch.optim.RMSprop if model == "wgan" else torch.optim.Adam
        assert {type(o) for o in state.optimisers.values()} == {kind}
        if model != "wgan":
            betas = (0.0, 0.9) if model == "wgan_gp" else (0.5, 0.999)
            assert {o.param_groups[0]["betas"] for o in state.optimisers.values()} == {betas}


def test_weights_of_the_clipped_critic_stay_within_the_limit(cells):
    state = started(cells, model="wgan", clip=0.004)
    cytogan.step(state, a_batch(state, cells), 0)
    largest = torch.stack([p.detach().abs().max() for p in state.networks["discriminator"].parameters()])
    assert largest.max().item() == pytest.approx(0.004)


def test_began_balances_its_terms_by_the_published_recursion(cells):
    state, k = started(cells, model="began", gain=0.5), 1e-8
    for t in range(6):
        found = cytogan.step(state, a_batch(state, cells), t)
        assert found["k"].item() == pytest.approx(k, rel=1e-5)
        real, made = found["real"].item(), found["made"].item()
        assert found["convergence"].item() == pytest.approx(real + abs(0.75 * real - made), rel=1e-5)
        k = min(1.0, max(1e-8, k + 0.5 * (0.75 * real - made)))
    assert state.networks["discriminator"].k.item() == pytest.approx(k, rel=1e-5)
    assert k > 0.1
    ends = [losses.balanced(torch.tensor(0.5), torch.tensor(v), torch.tensor(0.0), 1, 1).item() for v in (9.0, -9.0)]
    assert ends == pytest.approx([1, 1e-8])


def test_began_and_bigan_follow_their_objectives(cells):
    n, d = TINY["batch"], TINY["latent"]
    quiet = {"input_noise": 0.0, "smoothing": 1.0, "dropout": 0.0, "critic_rate": 0.0, "generator_rate": 0.0}
    nothing = torch.empty(n, 0)

    def slopes(objective, network):
        return torch.autograd.grad(objective, list(network.parameters()), retain_graph=True)

    for model in ("began", "bigan"):
        state = started(cells, model=model, **quiet)
        if model == "began":
            state.networks["discriminator"].k.fill_(0.3)
        batch, nets = a_batch(state, cells), {name: deepcopy(net) for name, net in state.networks.items()}
        torch.manual_seed(1)
        cytogan.step(state, batch, 0)
        torch.manual_seed(1)
        judge, maker, x = nets["discriminator"], nets["generator"], 2 * channel_max(batch.images[0]) - 1
        z = [torch.randn(n, d)]
        if model == "bigan":
            torch.rand(n)
        z.append(torch.randn(n, d))
        first, second = (maker(v, nothing) for v in z)
        if model == "began":
            apart = [(judge(v, nothing) - v).abs().mean() for v in (x, first.detach(), second)]
            wanted = {"discriminator": apart[0] - 0.3 * apart[1], "generator": apart[2]}
        else:
            code, softplus = nets["encoder"](x), functional.softplus
            made, real = judge(first.detach(), z[0]), judge(x, code)
            wanted = {
                "discriminator": (softplus(made).mean() + softplus(-judge(x, code.detach())).mean()) / 2,
                "generator": softplus(-judge(second, z[1])).mean(),
                "encoder": softplus(real).mean(),
            }
        for name, value in wanted.items():
            for got, want in zip(state.networks[name].parameters(), slopes(value, nets[name]), strict=True):
                torch.testing.assert_close(got.grad, want, rtol=1e-3, atol=1e-6 + 1e-4 * want.abs().max().item())


def test_the_vae_draws_its_codes_with_a_deviation_of_one_and_encodes_their_mean(cells):
    state = started(cells, model="vae", generator_rate=0.0)
    batch, encoder, decoder = a_batch(state, cells), *(deepcopy(state.networks[n]) for n in ("encoder", "decoder"))
    torch.manual_seed(2)
    found = cytogan.step(state, batch, 0)
    torch.manual_seed(2)
    x = channel_max(batch.images[0])
    mu, logvar = encoder(x)[:, :5], encoder(x)[:, 5:]
    x_hat = decoder(mu + (0.5 * logvar).exp() * torch.randn(4, 5))
    assert found["pixel"].item() == pytest.approx((x - x_hat).square().sum().item() / 4, rel=1e-5)
    assert found["kl"].item() == pytest.approx(losses.divergence(mu, logvar).item(), rel=1e-5)
    expected = encoder(channel_max(cells.to(CPU)))[:, :5].detach().numpy()
    np.testing.assert_allclose(cytogan.encode(state, cells), expected, rtol=1e-4, atol=1e-6)


def test_rates_fall_in_stairs_whether_the_step_is_a_number_or_on_the_device(cells):
    state = started(cells, model="lsgan", decay=0.5, every=10)
    for t in (0, 9, 10, 35, 1_000):
        for given in (t, torch.tensor(t)):
            objective.set_rates(state, given)
            for name, rate in (("discriminator", 7e-5), ("generator", 2e-4)):
                (group,) = state.optimisers[name].param_groups
                assert float(group["lr"]) == pytest.approx(rate * 0.5 ** (t // 10), rel=1e-6)
                assert isinstance(given, int) or group["lr"].dtype == torch.float32  # what the fused Adam reads


def as_on_cuda(monkeypatch, model):
    """Optimisers with the settings that they have on CUDA, of which those of Adam work on a CPU, too."""
    made = objective._optimisers
    device = torch.device("cpu" if model == "wgan" else "cuda")
    monkeypatch.setattr(objective, "_optimisers", lambda config, players, _: made(config, players, device))


@pytest.mark.parametrize("changes", kinds(), ids=named)
def test_a_step_never_asks_for_a_value_so_that_it_can_be_recorded(cells, monkeypatch, changes):
    as_on_cuda(monkeypatch, changes["model"])
    monkeypatch.setattr(objective, "place", lambda network, device: network)
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors with shapes and no values: whoever reads one fails
        state, t = started(cells, **changes), torch.zeros((), dtype=torch.int64)
        for _ in range(2):
            found = cytogan.step(state, a_batch(state, cells, t), t)
        with pytest.raises(Exception, match="local_scalar_dense"):
            found["discriminator" if "discriminator" in found else next(iter(found))].item()
    assert all(value.shape == () for value in found.values())


@pytest.mark.parametrize("changes", kinds(), ids=named)
def test_a_step_told_its_number_on_the_device_reads_nothing_back_and_does_the_same(cells, monkeypatch, changes):
    states = {}
    for tensor in (False, True):
        if tensor:
            as_on_cuda(monkeypatch, changes["model"])
        states[tensor] = started(cells, **changes, every=1, decay=0.5)
        images = cells.to(CPU)
        for t in range(2):
            number = torch.tensor(t) if tensor else t
            with pytest.MonkeyPatch.context() as patch:
                if tensor:
                    for name in ("item", "__bool__", "__float__", "__int__", "cpu", "numpy", "tolist", "nonzero"):
                        patch.setattr(torch.Tensor, name, refuse)
                torch.manual_seed(t)
                rows = cytogan.draw(states[tensor], number)
                cytogan.step(states[tensor], Batch(gather(images, rows), rows), number)
    plain, told = map(weights, states.values())
    # A bias in front of batch norm has no slope but for rounding, which Adam takes for one.
    assert ((told - plain).abs() > 1e-5 + 1e-3 * plain.abs()).float().mean() < 0.02


def refuse(*_, **__):
    raise AssertionError("a value was read from the device")


@pytest.mark.parametrize("changes", kinds(), ids=named)
def test_one_step_moves_every_player(cells, changes):
    state = started(cells, **changes)
    before = deepcopy(state.networks)
    found = cytogan.step(state, a_batch(state, cells), 0)
    for name, network in state.networks.items():
        pairs = zip(network.parameters(), before[name].parameters(), strict=True)
        assert changes["model"] == "wgan" or all(not torch.equal(now, then) for now, then in pairs if now.ndim > 1)
    assert all(value.isfinite() and not value.requires_grad for value in found.values())
    assert state.finite() is None


def test_a_cell_has_one_code_read_without_the_noise_of_training(cells):
    state = started(cells)
    judge = state.networks["discriminator"]
    x = 2 * channel_max(cells.to(CPU)) - 1
    codes = cytogan.encode(state, cells)
    assert codes.shape == (24, 5)
    np.testing.assert_array_equal(codes, cytogan.encode(state, cells))
    y = x
    for block in judge.convolutions:
        y = functional.leaky_relu(functional.conv2d(y, block[0].weight, block[0].bias, block[0].stride, 2), 0.2)
    by_hand = y.flatten(1) @ judge.code.weight.T + judge.code.bias
    np.testing.assert_allclose(codes, by_hand.detach().numpy(), rtol=1e-4, atol=1e-5)
    added = judge.noise(torch.zeros(200, 3, 16, 16))
    assert added.std().item() == pytest.approx(0.1, rel=0.02)
    assert judge.training


@pytest.mark.parametrize("model", MODELS)
def test_codes_and_features_do_not_depend_on_which_cells_are_encoded_together(cells, monkeypatch, model):
    state = started(cells, model=model)
    cytogan.step(state, a_batch(state, cells), 0)
    together, seen = cytogan.encode(state, cells), cytogan.features(state, cells, 2)
    filters = {"began": 4, "bigan": 8, "vae": 4, "ae": 2}.get(model, 4)
    assert (together.dtype, seen.shape) == (np.float32, (24, filters))
    monkeypatch.setattr("cellbook.training.codes.BLOCK", 5)
    np.testing.assert_allclose(cytogan.encode(state, cells), together, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cytogan.features(state, cells, 2), seen, rtol=1e-4, atol=1e-5)
    reader = "encoder" if model in ("bigan", "vae", "ae") else "discriminator"
    for name, network in state.networks.items():  # codes are read from this network and no other
        for p in network.parameters():
            p.data += 0.1
        assert np.allclose(cytogan.encode(state, cells), together, atol=1e-5) == (name != reader)
        for p in network.parameters():
            p.data -= 0.1


def test_the_output_sees_a_linear_representation_through_one_direction_and_a_bent_one_through_more(cells):
    plain = cytogan.directions(started(cells), cells)
    np.testing.assert_allclose(plain.seen, [1, 0, 0, 0, 0], atol=1e-6)
    state = started(cells, code_slope=0.2)
    bent = cytogan.directions(state, cells)
    assert bent.seen[1] > 1e-3
    assert bent.seen.sum() == pytest.approx(1)
    codes, output = cytogan.encode(state, cells), state.networks["discriminator"].output.weight[0].detach().numpy()
    slopes = np.array([[w if v > 0 else 0.2 * w for v, w in zip(c, output, strict=True)] for c in codes], dtype=float)
    np.testing.assert_allclose(bent.seen, np.linalg.eigvalsh(slopes.T @ slopes)[::-1] / (slopes**2).sum(), atol=1e-6)
    variances = np.linalg.eigvalsh(np.cov(codes.astype(float).T))
    assert bent.rank == pytest.approx(variances.sum() ** 2 / (variances**2).sum())
    codes = cytogan.encode(started(cells), cells).astype(float)
    way = output / np.linalg.norm(output)
    assert plain.varied == pytest.approx(np.var(codes @ way) / codes.var(axis=0).sum(), rel=1e-4)
    with pytest.raises(CellbookError, match="no output after its code"):
        cytogan.directions(started(cells, model="began"), cells)


def test_doses_are_told_as_logarithms_and_compounds_as_columns(cells):
    treatments = known(cells.table)
    assert treatments.to_numpy().tolist() == [["DMSO", 0.0], ["emetine", 1.0], ["taxol", 0.1], ["taxol", 10.0]]
    logs = np.array([-2.0, 0.0, -1.0, 1.0])  # the control a factor of ten below the least
    dose = (logs - logs.mean()) / logs.std()
    compound = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    for condition, wanted in (("dose", dose[:, None]), ("compound", compound), ("both", np.c_[dose, compound])):
        state = started(cells, condition=condition)
        np.testing.assert_allclose(state.networks["condition"].table, wanted, atol=1e-6)
        told = objective.told(state, torch.arange(8))
        np.testing.assert_allclose(told, np.asarray(wanted)[[0, 1, 2, 3, 0, 1, 2, 3]], atol=1e-6)
    assert objective.told(started(cells), torch.arange(8)).shape == (8, 0)
    assert objective.told(started(cells, condition="both", embedding=16), torch.arange(8)).shape == (8, 16)


def test_both_players_are_told_the_condition_which_only_shifts_the_output_of_the_discriminator(cells):
    state = started(cells, condition="both")
    with torch.no_grad():
        x, told = 2 * channel_max(cells.to(CPU)) - 1, state.networks["condition"](torch.tensor([1, 2]))
        judge = state.networks["discriminator"].eval()
        shift = judge(x, told[:1].expand(24, -1)) - judge(x, told[1:].expand(24, -1))
        assert shift.abs().min() > 1e-3
        torch.testing.assert_close(shift, shift[:1].expand(24), rtol=1e-3, atol=1e-5)
    images = [cytogan.sample(state, 3, 0, "taxol", dose) for dose in (0.1, 10.0)]
    assert np.abs(images[0] - images[1]).max() > 1e-4
    np.testing.assert_array_equal(images[0], cytogan.sample(state, 3, 0, "taxol", 0.1))


def test_an_embedding_is_trained_by_both_players(cells):
    state = started(cells, condition="dose", embedding=3)
    shared = set(state.networks["condition"].parameters())
    for optimiser in state.optimisers.values():
        assert shared <= set(optimiser.param_groups[0]["params"])


@pytest.mark.parametrize("model", MODELS)
def test_images_lie_between_0_and_1_and_depend_on_their_seed(cells, model):
    state = started(cells, model=model)
    if model == "ae":
        with pytest.raises(CellbookError, match="no distribution of codes"):
            cytogan.sample(state, 3)
    else:
        first = cytogan.sample(state, 3, seed=1)
        assert first.shape == (3, 3, 16, 16)
        assert 0 <= first.min() < first.max() <= 1
        assert np.array_equal(first, cytogan.sample(state, 3, seed=1))
        assert not np.array_equal(first, cytogan.sample(state, 3, seed=2))
        np.testing.assert_array_equal(first, cytogan.decode(state, cytogan.noise(state, 3, 1)))
    if model in ADVERSARIAL:
        with pytest.raises(CellbookError, match="makes no image of a cell"):
            cytogan.reconstruct(state, cells)
    else:
        if model == "began":
            state = started(cells, model=model, condition="both", embedding=3)
        again = cytogan.reconstruct(state, cells, *(("taxol", 0.1) if model == "began" else ()))
        assert again.shape == cells.images.shape
        assert 0 <= again.min() <= again.max() <= 1


def test_uniform_noise_lies_between_minus_one_and_one(cells):
    state = started(cells, prior="uniform")
    for z in (cytogan.noise(state, 4000), objective.draw_noise(state, 4000).numpy()):
        assert -1 <= z.min() < -0.99
        assert z.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)
    assert objective.draw_noise(started(cells), 4000).std().item() == pytest.approx(1, rel=0.02)
    with pytest.raises(CellbookError, match="prior='uniform': the VAE's codes"):
        Config(model="vae", prior="uniform")


def test_arcs_are_those_of_a_loop_and_a_pair_without_one_gets_a_straight_line_alone():
    rng = np.random.default_rng(1)
    start, end = rng.normal(size=(2, 5, 7))
    end[1], end[3], start[4] = 2 * start[1], -start[3], 0
    got = cytogan.slerp(start, end, 4)
    for n in range(5):
        for k, t in enumerate((0, 1 / 3, 2 / 3, 1)):
            a, b = start[n], end[n]
            wanted = (1 - t) * a + t * b
            if n in (0, 2):
                angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                wanted = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
            np.testing.assert_allclose(got[k, n], wanted, atol=1e-9)
    np.testing.assert_allclose(cytogan.slerp(start[0], end[0], 4), got[:, 0])
    unit = start[:3] / np.linalg.norm(start[:3], axis=1, keepdims=True)
    arc = cytogan.slerp(unit[0], unit[2], 9)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 1)
    lines = cytogan.straight(start, end, 3)
    np.testing.assert_allclose(lines, [start, (start + end) / 2, end])


def test_arithmetic_takes_one_code_each_or_the_mean_of_several():
    a, b, c = np.random.default_rng(2).normal(size=(3, 4, 6))
    np.testing.assert_allclose(cytogan.analogy(a[0], b[0], c[0]), a[0] - b[0] + c[0])
    np.testing.assert_allclose(cytogan.analogy(a, b[:2], c[0]), a.sum(0) / 4 - (b[0] + b[1]) / 2 + c[0])


def test_what_the_discriminator_is_updated_with_are_images_made_with_moments_of_their_batch(cells):
    state = started(cells, model="lsgan", input_noise=0.0, critic_rate=0.0, generator_rate=0.0)
    maker = state.networks["generator"]
    cytogan.step(state, a_batch(state, cells), 0)
    norm = next(m for m in maker.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked.item() == 2  # of the discriminator's images and of its own
    assert (norm.eps, norm.momentum) == (1e-3, 0.1)


def test_an_empty_channel_or_cell_is_no_nan(cells):
    images = cells.images.copy()
    images[:, 1] = 0
    images[3] = 0
    dark = CellSet(images, cells.table, cells.channels, cells.pixel_um)
    for model in MODELS:
        state = started(dark, model=model)
        found = cytogan.step(state, a_batch(state, dark), 0)
        assert all(value.isfinite() for value in found.values())
        assert np.isfinite(cytogan.encode(state, dark)).all()


@pytest.fixture(scope="module")
def screen():
    """A week of a simulated screen, a cell or two a well."""
    config = SimulatedScreen(wells=1, controls=1, positive_controls=0, cells=2, crop=16)
    plates = plate_map(config)["Metadata_plate"].unique()[:3]
    return simulate(config, plates=list(plates))


@pytest.mark.parametrize("changes", kinds(), ids=named)
def test_every_model_trains_on_a_simulated_screen_and_leaves_codes_of_all_cells(screen, tmp_path, changes):
    config = Config(**{**TINY, **changes}, iterations=2)
    run = train_run(cytogan, config, screen, tmp_path, "cpu")
    codes = pd.read_parquet(run.path("codes.parquet"))
    assert len(codes) == len(screen)  # of a well with few cells all are kept
    assert np.isfinite(codes.filter(regex=r"^z\d+$").to_numpy()).all()
    assert codes.filter(regex=r"^z\d+$").shape[1] == 5


@pytest.mark.parametrize("model", ["wgan_gp", "began", "bigan"])
def test_an_interrupted_training_ends_like_an_undisturbed_one(cells, tmp_path, monkeypatch, model):
    config = Config(model, **TINY, iterations=4, every=1)
    train(cytogan, config, cells, tmp_path / "whole", "cpu")
    step = cytogan.step

    def stop(state, batch, t):
        if t == 2:
            raise KeyboardInterrupt
        return step(state, batch, t)

    monkeypatch.setattr(cytogan, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(cytogan, config, cells, tmp_path / "cut", "cpu", checkpoint_seconds=0)
    monkeypatch.undo()
    train(cytogan, config, cells, tmp_path / "cut", "cpu")
    for product in ("history.parquet", "weights.safetensors"):
        assert (tmp_path / "cut" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()


@pytest.mark.parametrize("model", ["dcgan", "lsgan", "wgan_gp", "began", "bigan", "vae"])
def test_a_rate_without_sense_ends_a_training_at_a_named_step_and_the_last_good_state_is_kept(
    cells, tmp_path, monkeypatch, model
):
    def rates(state, t):
        for optimiser in state.optimisers.values():
            optimiser.param_groups[0]["lr"] = 1e6 if t >= 3 else 1e-4

    config = Config(model, **TINY, iterations=9)
    with pytest.raises(CellbookError, match=r"is (nan|inf) at step [12]: lower the learning rate"):
        train(cytogan, replace(config, critic_rate=1e6, generator_rate=1e6), cells, tmp_path / "at once", "cpu")
    monkeypatch.setattr(objective, "set_rates", rates)
    with pytest.raises(CellbookError, match="is the last good state: lower the learning rate") as told:
        train(cytogan, config, cells, tmp_path, "cpu", checkpoint_seconds=0)
    step = int(re.search(r"is (?:nan|inf) at step (\d+);", str(told.value))[1])
    left = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert 3 <= left["history"][-1, 0] + len(left["recent"]) == step - 1
    for network in left["networks"].values():
        assert all(v.isfinite().all() for v in network.values())
    assert not (tmp_path / WEIGHTS).exists()


def test_a_generator_that_draws_one_cell_again_and_again_is_named_when_its_training_ends(cells, tmp_path, caplog):
    def collapsed(state, batch, t):
        with torch.no_grad():
            state.networks["generator"].layers[0].weight.zero_()  # of which z no longer matters
        return found

    found = {"discriminator": torch.tensor(0.0)}
    method = SimpleNamespace(**{**vars(cytogan), "__name__": "methods.cytogan", "step": collapsed})
    train_run(method, Config(**TINY, iterations=1), cells, tmp_path, "cpu")
    wanted = "lsgan has collapsed: of 24 samples 100 % are nearer to another than all but 5 % of real cells are"
    assert caplog.messages == [wanted]


def test_samples_as_varied_as_cells_are_no_collapse(cells, caplog, tmp_path):
    class Copies(torch.nn.Module):
        """Draws the real cells, each with its own grain."""

        def forward(self, z, told):
            images = 2 * channel_max(cells.to(CPU)) - 1
            return images[: len(z)] + 0.02 * torch.randn(len(z), *images.shape[1:])

    state = started(cells)
    state.networks["generator"] = Copies()
    torch.manual_seed(0)
    assert cytogan.duplicates(state, cells) < 0.25
    cytogan.finish(state, cells, tmp_path)
    assert caplog.messages == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", kinds(), ids=named)
def test_the_share_of_near_duplicates_is_measured_of_every_model_that_draws(cells, changes):
    state = started(cells, **changes)
    if changes["model"] == "ae":
        with pytest.raises(CellbookError, match="no distribution of codes"):
            cytogan.duplicates(state, cells)
    else:
        assert 0 <= cytogan.duplicates(state, cells) <= 1


def test_a_discriminator_learns_to_tell_and_an_autoencoder_to_copy(cells, tmp_path):
    for model, term, rates in (
        ("lsgan", "discriminator", {"critic_rate": 2e-3, "generator_rate": 1e-5}),
        ("ae", "pixel", {"generator_rate": 1e-2}),
    ):
        config = Config(model, **{**TINY, "width": 4, "batch": 12}, iterations=40, **rates)
        train(cytogan, config, cells, tmp_path / model, "cpu")
        course = pd.read_parquet(tmp_path / model / "history.parquet")[term]
        assert course.iloc[-5:].mean() < 0.7 * course.iloc[:5].mean()


def test_what_cannot_be_meant_is_refused_in_one_sentence(cells):
    for values, message in (
        ({"model": "gan"}, "none of dcgan, lsgan"),
        ({"condition": "week"}, "none of none, dose"),
        ({"side": 68}, "side=68 must be a multiple of 16"),
        ({"batch": 1}, "batch=1 must be at least 2"),
        ({"generator_rate": float("nan")}, "generator_rate=nan"),
        ({"smoothing": 1.2}, "smoothing=1.2 must lie from 0 to 1"),
        ({"model": "bigan", "condition": "dose"}, "takes none"),
        ({"embedding": 16}, "no condition to embed"),
        ({"model": "began", "critic_steps": 5}, "critic_steps=5"),
    ):
        with pytest.raises(CellbookError, match=message):
            Config(**values)
    for changes, message in (
        ({"side": 32}, "side=32: the crops have 16 x 16"),
        ({"batch": 25}, "batch=25 is more than the 24 cells"),
    ):
        with pytest.raises(CellbookError, match=message):
            started(cells, **changes)
    state = started(cells)
    for call, message in (
        (lambda: cytogan.decode(state, np.zeros((2, 4))), "rows? of 5 numbers"),
        (lambda: cytogan.sample(state, 0), "n=0"),
        (lambda: cytogan.sample(state, 1, compound="taxol"), "takes no condition"),
        (lambda: cytogan.features(state, cells, 5), "layer=5: the network has convolutions 1 to 4"),
        (lambda: cytogan.slerp(np.zeros(3), np.zeros(4)), "codes of one shape"),
        (lambda: cytogan.analogy(np.zeros(3), np.zeros(4), np.zeros(3)), "3, 4 and 3 numbers"),
    ):
        with pytest.raises(CellbookError, match=message):
            call()


def test_a_condition_that_never_occurred_is_refused_with_those_that_did(cells):
    state = started(cells, condition="both")
    with pytest.raises(CellbookError, match=re.escape("concentration=3.0 never occurred in training")):
        cytogan.sample(state, 1, 0, "taxol", 3.0)
    with pytest.raises(CellbookError, match=r"taxol 10\.0"):
        cytogan.sample(state, 1, 0, "ALLN", 3.0)
    with pytest.raises(CellbookError, match="takes compound and concentration"):
        cytogan.sample(state, 1, 0, "taxol")
    with pytest.raises(CellbookError, match="takes concentration"):
        cytogan.sample(started(cells, condition="dose"), 1, 0, "taxol", 0.1)


def test_doses_that_are_none_are_refused(cells):
    for change, message in (
        (lambda dose: dose.mask(dose == 10, np.nan), r"no dose in 1 of 4 treatments \(taxol\)"),
        (lambda dose: dose.mask(dose == 10, -1.0), "no dose in 1 of 4"),
        (lambda dose: 0 * dose, "is 0 in all treatments"),
    ):
        table = cells.table.assign(Metadata_concentration=change(cells.table["Metadata_concentration"]))
        other = CellSet(cells.images, table, cells.channels, cells.pixel_um)
        started(other, condition="compound")
        with pytest.raises(CellbookError, match=message):
            started(other, condition="dose")
    words = np.where(cells.table["Metadata_compound"] == "DMSO", "none", "low")
    other = CellSet(cells.images, cells.table.assign(Metadata_concentration=words), cells.channels, cells.pixel_um)
    started(other, condition="compound")
    with pytest.raises(CellbookError, match="no dose in"):
        started(other, condition="dose")


def test_the_paper_preset_is_the_paper_and_the_others_only_smaller():
    assert PRESETS["paper"] == Config() == paper("lsgan")
    lsgan, told = PRESETS["paper"].settings, paper("lsgan", "dose").settings
    assert (lsgan.critic_rate, lsgan.generator_rate, lsgan.decay, lsgan.every, lsgan.batch) == (
        7e-5,
        2e-4,
        0.9999,
        100,
        64,
    )
    assert (told.decay, told.every) == (0.9995, 200)
    assert paper("wgan_gp", "both").settings.generator_rate == 7e-5
    began = paper("began")
    assert (began.iterations, began.settings.batch, began.gamma) == (1_300_000 * 30 // 16, 16, 0.75)
    critic = paper("wgan_gp")
    assert critic.iterations * critic.settings.critic_steps == 1_015_625
    assert (critic.settings.beta1, critic.settings.beta2, critic.penalty) == (0.0, 0.9, 10)
    assert configure(cytogan, {"model": "began", "width": "4"}).settings.width == 4
    assert replace(PRESETS["quick"], model="vae").settings.latent == 256
    for name in ("smoke", "quick"):
        assert PRESETS[name].iterations < 1000
        assert PRESETS[name].side == 48


@pytest.mark.gpu
@pytest.mark.parametrize("model", [*ADVERSARIAL, "began"])
def test_on_cuda_a_step_with_conditions_is_recorded_and_its_training_can_be_gone_on_with(
    cells, tmp_path, monkeypatch, model
):
    monkeypatch.setattr("cellbook.training.loop.LINES", 12)
    config, done = Config(model, "both", 3, **TINY, iterations=12, every=1), []

    def stop(history, losses):
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(losses)
        return add(history, losses)

    add = History.add
    monkeypatch.setattr(History, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        train(cytogan, config, cells, tmp_path, "cuda", checkpoint_seconds=0)
    monkeypatch.setattr(History, "add", add)
    state = train(cytogan, config, cells, tmp_path, "cuda")
    history = pd.read_parquet(tmp_path / "history.parquet")
    assert state.finite() is None
    assert history["step"].tolist() == list(range(1, 13))
    assert np.isfinite(history.to_numpy()).all()
    assert history.drop(columns="step").nunique().max() == 12  # a step that is played does not repeat the last


def test_a_course_keeps_what_draws_images_at_every_checkpoint(cells, tmp_path):
    config, wells = Config(**TINY, iterations=6, seed=3), cells.table["Metadata_concentration"].map("w{:g}".format)
    cells = replace(cells, table=cells.table.assign(Metadata_plate="p", Metadata_well=wells))
    run = train_run(cytogan, config, cells, tmp_path, "cpu", course=True)
    state, steps = load_run(cytogan, config, cells, run, "cpu"), sorted(set(run.table("course")["step"]))
    final = cytogan.sample(state, 3)
    torch.manual_seed(3)
    untrained = cytogan.sample(cytogan.begin(config, cells, CPU), 3)
    path = run.path("course.safetensors")
    drawn = {step: cytogan.sample(load_course(state, path, step), 3) for step in steps}
    np.testing.assert_array_equal(drawn[0], untrained)
    np.testing.assert_array_equal(drawn[6], final)
    shorter = train_run(cytogan, replace(config, iterations=4), cells, tmp_path, "cpu", course=True)
    np.testing.assert_array_equal(
        drawn[4], cytogan.sample(load_course(state, shorter.path("course.safetensors"), 4), 3)
    )
    with pytest.raises(CellbookError, match="holds nothing of step 7"):
        load_course(state, path, 7)
    assert "course.safetensors" not in train_run(cytogan, config, cells, tmp_path, "cpu").products()
