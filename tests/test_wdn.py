"""WDN: critics against autograd, loops and exact transport; the optimiser; alternation, bugs, variants, the draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.errors import CellbookError
from cellbook.methods.wdn import PRESETS, Alignment, Config, fit
from cellbook.methods.wdn.critics import Critics, layers, n_parameters, rmsprop_
from cellbook.methods.wdn.distances import energy, sinkhorn
from cellbook.methods.wdn.fitting import Fitting
from cellbook.methods.wdn.maps import apply, identity, regulariser
from cellbook.methods.wdn.sampling import Minibatches, Pairs, make_design

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
FAST = Config(pretraining=300, iterations=300, critic_steps=20, checkpoint_every=100, critic_rate=1e-3, map_rate=1e-3)


def table(x, domain, compound="DMSO", concentration=0.0):
    """Profile table of rows x (rows, n)."""
    described = pd.DataFrame(
        {"Metadata_batch": domain, "Metadata_compound": compound, "Metadata_concentration": concentration}
    )
    return described.join(pd.DataFrame(np.asarray(x), columns=[f"f{i}" for i in range(np.shape(x)[1])]))


def shifted_domains(seed=0, n=10, rows=300, domains=3):
    """Gaussian domains of unequal size, shifted about 2.5 apart and scaled."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=(domains, n))
    shift *= 2.5 / np.sqrt(2) / np.linalg.norm(shift, axis=1, keepdims=True)
    sizes = [rows + 37 * d for d in range(domains)]
    x = [rng.normal(size=(m, n)) * np.exp(0.2 * rng.normal(size=n)) + s for m, s in zip(sizes, shift, strict=True)]
    return table(np.concatenate(x), np.repeat([f"Week{d + 1}" for d in range(domains)], sizes))


def centroid_gap(profiles):
    means = profiles.groupby("Metadata_batch")[[c for c in profiles if c[0] == "f"]].mean().to_numpy()
    i, j = np.triu_indices(len(means), 1)
    return np.linalg.norm(means[i] - means[j], axis=1).mean()


def all_pairs(views):
    i, j = np.triu_indices(views, 1)
    return Pairs(torch.from_numpy(np.stack([i, j])), torch.full((len(i),), 1 / len(i), dtype=torch.float64))


def random_critics(pairs, n, config, seed=0, scale=1.5):
    critics = Critics(pairs, n, config, CPU, torch.float64)
    generator = torch.Generator().manual_seed(seed)
    critics.theta.copy_(torch.randn(critics.theta.shape, generator=generator, dtype=torch.float64) * scale)
    return critics


def objective(theta, pairs, views, epsilon, config):
    """W_p and g_p of every pair by autograd, one critic after the other."""
    distance, penalty = [], []
    for p in range(len(pairs.weight)):
        w = layers(theta[p : p + 1], views.shape[2], config.width, config.depth)

        def f(z, w=w):
            a = z
            for weight, bias in zip(w.weights, w.biases, strict=True):
                u = a @ weight[0].T + bias[0]
                a = torch.logaddexp(u, torch.zeros_like(u))  # torch's softplus is exact to nine digits only
            return a @ w.v[0] + w.c[0]

        x, y = views[pairs.sides[0, p]], views[pairs.sides[1, p]]
        e = epsilon[p][:, None]
        z = (e * x + (1 - e) * y).detach().requires_grad_(True)
        slope = torch.autograd.grad(f(z).sum(), z, create_graph=True)[0]
        length = slope.norm() if config.bug_norm else slope.norm(dim=1)
        penalty.append((config.gamma * (length - 1).clamp_min(0) ** 2).mean())
        distance.append(f(x).mean() - f(y).mean())
    return torch.stack(distance), torch.stack(penalty)


# --- critics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug_norm", [False, True])
@pytest.mark.parametrize(("depth", "width"), [(1, 2), (2, 2), (3, 3)])
def test_gradient_equals_differentiating_twice_through_the_penalty(depth, width, bug_norm):
    config = Config(depth=depth, width=width, bug_norm=bug_norm)
    pairs = all_pairs(4)
    critics = random_critics(pairs, 7, config)
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(4, 9, 7, generator=generator, dtype=torch.float64) * 2 + 1
    epsilon = torch.rand(6, 9, generator=generator, dtype=torch.float64)
    theta, again = (critics.theta.clone().requires_grad_(True) for _ in range(2))
    distance, penalty = critics.objective(theta, views, epsilon)
    w, g = objective(again, pairs, views, epsilon, config)
    assert (g > 0).any()  # else the penalty's gradient is not tested
    exactly = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(distance, w, **exactly)
    torch.testing.assert_close(penalty, g, **exactly)
    for d, p in ((distance, penalty), (w, g)):
        (critics.weight * (d - p)).sum().backward()
    largest = float(again.grad.abs().max())
    torch.testing.assert_close(theta.grad, again.grad, rtol=1e-12, atol=1e-12 * largest)
    torch.testing.assert_close(critics.distance(views), w.detach(), **exactly)


def test_the_objective_is_equation_10_row_by_row():
    pairs, config = all_pairs(3), Config()
    critics = random_critics(pairs, 4, config, seed=5)
    generator = torch.Generator().manual_seed(6)
    views = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    epsilon = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    distance, penalty = critics.objective(critics.theta, views, epsilon)
    numbers, x, e = critics.theta.numpy(), views.numpy(), epsilon.numpy()
    for p, (i, j) in enumerate(pairs.sides.T.tolist()):
        weight, bias, v, c = numbers[p, :8].reshape(2, 4), numbers[p, 8:10], numbers[p, 10:12], numbers[p, 12]

        def f(z, weight=weight, bias=bias, v=v, c=c):
            return sum(v[h] * np.log1p(np.exp(weight[h] @ z + bias[h])) for h in range(2)) + c

        assert float(distance[p]) == pytest.approx(np.mean([f(z) for z in x[i]]) - np.mean([f(z) for z in x[j]]))
        slow = 0.0
        for k in range(5):
            z = e[p, k] * x[i, k] + (1 - e[p, k]) * x[j, k]
            slope = [(f(z + 1e-6 * unit) - f(z - 1e-6 * unit)) / 2e-6 for unit in np.eye(4)]
            slow += 10.0 * max(np.linalg.norm(slope) - 1, 0) ** 2 / 5
        assert slow > 0
        assert float(penalty[p]) == pytest.approx(slow, rel=1e-6)


def test_stacked_critics_learn_what_single_critics_learn():
    views = torch.randn(4, 20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    config, pairs = Config(critic_rate=1e-2), all_pairs(4)
    stacked = random_critics(pairs, 5, config)
    single = []
    for p in range(6):
        alone = Critics(Pairs(torch.tensor([[0], [1]]), pairs.weight[p : p + 1]), 5, config, CPU, torch.float64)
        alone.theta.copy_(stacked.theta[p : p + 1])
        single.append(alone)
    for step in range(30):
        epsilon = torch.rand(6, 20, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        stacked.ascend(views, epsilon)
        for p, alone in enumerate(single):
            alone.ascend(views[pairs.sides[:, p]], epsilon[p : p + 1])
    torch.testing.assert_close(stacked.theta, torch.cat([alone.theta for alone in single]), rtol=1e-9, atol=1e-12)


def test_views_in_different_numbers_of_pairs_get_their_own_gradients():
    pairs = Pairs(torch.tensor([[0, 0, 0, 3], [1, 2, 3, 2]]), torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64))
    config = Config()
    critics = random_critics(pairs, 6, config)
    views = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    epsilon = torch.rand(4, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    theta, again = (critics.theta.clone().requires_grad_(True) for _ in range(2))
    for ours, (w, g) in (
        (theta, critics.objective(theta, views, epsilon)),
        (again, objective(again, pairs, views, epsilon, config)),
    ):
        ours.grad = torch.autograd.grad((pairs.weight * (w - g)).sum(), ours)[0]
    torch.testing.assert_close(theta.grad, again.grad, rtol=1e-12, atol=1e-12)


def test_critic_sizes_are_those_of_the_paper_and_of_the_code():
    assert [n_parameters(n, depth=1) for n in (192, 50)] == [389, 105]
    assert [n_parameters(n, depth=2) for n in (192, 50)] == [395, 111]


@pytest.mark.parametrize("bug_norm", [False, True])
def test_a_critic_of_a_pure_shift_finds_the_slope_that_the_soft_penalty_allows(bug_norm):
    # y = x - shift exactly: a slope s gives s * length - gamma (s - 1)^2, best at s = 1 + length / (2 gamma).
    length, gamma, batch = 2.0, 10.0, 100
    config = Config(critic_rate=1e-3, accumulator=0.0, bug_norm=bug_norm)
    critics = Critics(all_pairs(2), 4, config, CPU, torch.float64)
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(4500):
        y = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
        x = y + torch.tensor([length, 0, 0, 0], dtype=torch.float64)
        views = torch.stack([x, y])
        estimate, _ = critics.ascend(views, torch.rand(1, batch, generator=generator, dtype=torch.float64))
        if step >= 4000:
            found.append(float(estimate))
    expected = length * (1 + length / (2 * gamma))
    if bug_norm:  # one slope a minibatch: the slope of each row is held to about 1 / sqrt(batch)
        assert np.mean(found) == pytest.approx(expected / np.sqrt(batch), rel=0.2)
    else:
        assert np.mean(found) == pytest.approx(expected, rel=0.03)


def test_critics_approach_the_exact_transport_distance_on_small_samples():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)) * 0.5 + [3, -2, 1]
    y = rng.normal(size=(60, 3)) * 0.5
    exact = ot.emd2(np.full(60, 1 / 60), np.full(60, 1 / 60), ot.dist(x, y, metric="euclidean"))
    config = Config(critic_rate=1e-3, gamma=100.0, accumulator=0.0, start="random", width=4)
    critics = Critics(all_pairs(2), 3, config, CPU, torch.float64)
    views = torch.from_numpy(np.stack([x, y]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4500):
        estimate, _ = critics.ascend(views, torch.rand(1, 60, generator=generator, dtype=torch.float64))
    # a soft penalty of 100 lets slopes exceed 1 by two per cent; a small critic may miss a few per cent
    assert float(estimate) == pytest.approx(exact, rel=0.05)
    same = torch.from_numpy(np.stack([x, x]))
    assert abs(float(critics.distance(same))) < 1e-12


def test_rmsprop_follows_the_rule_of_tensorflow_number_by_number():
    config = Config()
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(50, 3)) * np.array([1e-6, 1e-3, 10.0])
    value, square = torch.zeros(3, dtype=torch.float64), torch.full((3,), config.accumulator, dtype=torch.float64)
    slow, mean_square = [0.0] * 3, [1.0] * 3
    for gradient in gradients:
        rmsprop_(value, torch.from_numpy(gradient), square, config, 1e-4)
        for i, g in enumerate(gradient):
            mean_square[i] += (g * g - mean_square[i]) * (1 - 0.9)
            slow[i] += 1e-4 * g / (mean_square[i] + 1e-10) ** 0.5
    np.testing.assert_allclose(value.numpy(), slow, rtol=1e-12)
    assert abs(slow[1]) < 50 * 1e-5  # a mean square that starts at 1 damps the first steps


# --- maps and training ----------------------------------------------------------------------------------------------


def test_many_critic_steps_a_map_step_close_the_gap_and_the_printed_order_widens_it():
    profiles = shifted_domains()
    before = centroid_gap(profiles)
    good = fit(profiles, replace(FAST, start="random", critic_steps=15, iterations=350), device="cpu")
    assert centroid_gap(good.transform(profiles)) < 0.1 * before
    printed = fit(profiles, replace(FAST, critic_steps=1, map_steps=50, iterations=500), device="cpu")
    assert centroid_gap(printed.transform(profiles)) > before


def test_the_bias_inside_the_product_cannot_learn_a_translation():
    # x (M + 1 b') moves a mean m by (sum of m) b'. Here the sums are 0: a shift can only be learned as a translation,
    # and the weight on M keeps it from being undone by shrinking.
    rng = np.random.default_rng(0)
    shift = np.zeros(6)
    shift[:2] = 1.2, -1.2
    x = np.concatenate([rng.normal(size=(300, 6)) + shift, rng.normal(size=(300, 6)) - shift])
    profiles = table(x, np.repeat(["Week1", "Week2"], 300))
    gaps = {}
    for bug in (False, True):
        config = replace(FAST, iterations=500, map_rate=3e-3, distance="energy", bug_bias=bug, lambda_cov=100.0)
        gaps[bug] = centroid_gap(fit(profiles, config, device="cpu").transform(profiles))
    assert gaps[False] < 0.1 * centroid_gap(profiles)
    assert gaps[True] > 0.5 * centroid_gap(profiles)


@pytest.mark.parametrize(
    "variant",
    [
        {"depth": 2},
        {"distance": "energy"},
        {"distance": "sinkhorn"},
        {"loss": "barycentre"},
        {"residual": 4},
        {"bug_norm": True},
    ],
    ids=lambda v: next(iter(v)) + str(next(iter(v.values()))),
)
def test_every_variant_brings_the_domains_together(variant):
    if variant.get("distance") == "sinkhorn":
        pytest.importorskip("ot.batch")
    profiles = shifted_domains(rows=150)
    config = replace(FAST, **{"critic_steps": 10, "iterations": 200, "accumulator": 1e-4, **variant})
    aligned = fit(profiles, config, device="cpu")
    assert centroid_gap(aligned.transform(profiles)) < 0.5 * centroid_gap(profiles)
    assert aligned.affine is not bool(config.residual)


def test_on_the_sphere_the_length_of_rows_plays_no_part():
    profiles = shifted_domains(rows=120)
    names = [c for c in profiles if c[0] == "f"]
    config = replace(FAST, sphere=True, iterations=20, checkpoint_every=20)
    training = Fitting(profiles[names].to_numpy(), make_design(profiles, "Metadata_batch", None, config), config, CPU)
    x = torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(training._views(x, 3 * x), training._views(x, x))
    assert np.isfinite(centroid_gap(fit(profiles, config, device="cpu").transform(profiles)))


def test_the_barycentre_loss_keeps_a_domain_that_is_like_the_others_where_it_is():
    # Mapped rows are compared with unmapped ones, so that two equal domains have nothing to gain from any map.
    rng = np.random.default_rng(0)
    profiles = table(rng.normal(size=(600, 4)) * [1, 2, 3, 4], np.repeat(["Week1", "Week2"], 300))
    names = ["f0", "f1", "f2", "f3"]
    config = replace(FAST, distance="energy", loss="barycentre", iterations=1000, map_rate=2e-3, accumulator=1e-4)
    kept = fit(profiles, config, device="cpu").transform(profiles)
    np.testing.assert_allclose(kept[names].std(), profiles[names].std(), rtol=0.1)


def test_plates_are_aligned_within_weeks_and_then_weeks():
    rng = np.random.default_rng(3)
    plates = [f"Week{1 + p // 2}_{p}" for p in range(4)]
    shift = np.array([[0, 0], [2, 0], [5, 5], [5, 7]], dtype=float)
    x = np.concatenate([rng.normal(size=(200, 2)) + s for s in shift])
    profiles = table(x, np.repeat([p[:5] for p in plates], 200)).assign(Metadata_plate=np.repeat(plates, 200))
    levels = {"domains": ("Metadata_plate", "Metadata_batch"), "distance": "energy", "iterations": 400}
    config = replace(FAST, **levels, map_rate=8e-3, accumulator=1e-4)
    aligned = fit(profiles, config, device="cpu")

    def plate_means(t):
        return t.groupby("Metadata_plate")[["f0", "f1"]].mean().to_numpy()

    middle, end = (plate_means(aligned.transform(profiles, step)) for step in (400, 800))
    within = [np.linalg.norm(middle[0] - middle[1]), np.linalg.norm(middle[2] - middle[3])]
    assert max(within) < 0.4
    assert np.linalg.norm(middle[:2].mean(axis=0) - middle[2:].mean(axis=0)) > 4  # weeks are untouched so far
    assert np.linalg.norm(end - end.mean(axis=0), axis=1).max() < 0.4
    # The same rows, the weeks' plates in turns: maps belong to plates, however the table is sorted.
    turns = profiles.loc[(np.array([0, 2, 1, 3])[:, None] * 200 + np.arange(200)).ravel()].reset_index(drop=True)
    turned = plate_means(fit(turns, config, device="cpu").transform(turns))
    assert np.linalg.norm(turned - turned.mean(axis=0), axis=1).max() < 0.4
    codes = aligned.codes(profiles)
    m, b = aligned.affine_maps(codes, len(aligned.steps) - 1)
    composed = np.einsum("rn,rnm->rm", x, m) + b
    np.testing.assert_allclose(composed, aligned.transform(profiles)[["f0", "f1"]].to_numpy(), atol=1e-9)


def test_the_same_seed_gives_the_same_maps_and_another_seed_others():
    profiles = shifted_domains(rows=60)
    first, again, other = (
        fit(profiles, replace(PRESETS["smoke"], seed=seed), device="cpu").levels[0].maps["M"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pretraining_leaves_the_maps_at_the_identity_and_step_0_changes_nothing():
    profiles = shifted_domains(rows=60)
    aligned = fit(profiles, PRESETS["smoke"], device="cpu")
    pd.testing.assert_frame_equal(aligned.transform(profiles, 0), profiles)
    assert aligned.steps.tolist() == [0, 2, 4, 6]
    assert not np.array_equal(aligned.transform(profiles, 6)["f0"], profiles["f0"])


def test_mapping_all_rows_once_or_each_minibatch_gives_the_same_views():
    profiles = shifted_domains(rows=50)
    config = replace(FAST, treatments="controls")
    x = profiles[[c for c in profiles if c[0] == "f"]].to_numpy()
    training = Fitting(x, make_design(profiles, "Metadata_batch", None, config), config, CPU)
    for value in training.maps.values():
        value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    rows = training.batches.draw(1)[0]
    once = training._map_all()[rows]
    torch.testing.assert_close(once, training._map(training.data[rows]))


def test_bug_bias_adds_the_bias_to_every_row_of_the_matrix():
    config = Config(residual=3)
    maps = identity(2, 4, config, CPU, torch.float64)
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(apply(maps, x), x)
    maps["b"][1] = torch.tensor([1.0, 2, 3, 4])
    torch.testing.assert_close(apply(maps, x)[1], x[1] + maps["b"][1])
    torch.testing.assert_close(apply(maps, x, bug_bias=True)[1], x[1] + x[1].sum(dim=1, keepdim=True) * maps["b"][1])
    found = regulariser(maps, replace(config, lambda_mean=2.0, lambda_cov=5.0))
    assert float(found) == pytest.approx(2.0 * 30 / 2)


def test_saved_alignments_come_back_as_they_were(tmp_path):
    profiles = shifted_domains(rows=60)
    aligned = fit(profiles, replace(PRESETS["smoke"], residual=2), device="cpu")
    aligned.save(tmp_path)
    pd.testing.assert_frame_equal(Alignment.load(tmp_path).transform(profiles), aligned.transform(profiles))


# --- what is compared, and the draws --------------------------------------------------------------------------------


def test_minibatches_use_every_row_once_a_pass_and_straddle_passes():
    rows = [np.arange(7), np.arange(100, 130)]
    drawn = Minibatches(rows, 10, torch.Generator().manual_seed(0))
    batches = torch.cat([drawn.draw(steps) for steps in (3, 1, 3)]).numpy()  # (7, 2, 10)
    for g, group in enumerate(rows):
        passes = batches[:, g].reshape(-1, len(group)) if 70 % len(group) == 0 else batches[:, g].ravel()[:60]
        for one in passes.reshape(-1, len(group)):
            assert sorted(one) == group.tolist()
    first = batches[:, 0].reshape(-1, 7)
    assert len({tuple(one) for one in first}) > 1  # another order in every pass


def test_only_the_same_treatment_is_made_alike_not_another_dose():
    x = np.random.default_rng(0).normal(size=(24, 3))
    profiles = table(
        x,
        np.repeat(["Week1", "Week2"], 12),
        compound=np.tile(np.repeat(["DMSO", "taxol", "AZ"], 4), 2),
        concentration=np.concatenate([np.repeat([0, 0.3, 1.0], 4), np.repeat([0, 0.3, 3.0], 4)]),
    )
    alone = make_design(profiles, "Metadata_batch", None, Config())
    assert len(alone.rows) == 2
    assert len(alone.pairs.weight) == 1
    both = make_design(profiles, "Metadata_batch", None, Config(treatments="replicated"))
    assert {str(profiles["Metadata_compound"].iloc[rows[0]]) for rows in both.rows} == {"DMSO", "taxol"}
    assert both.pairs.weight.tolist() == [0.5, 0.5]
    for i, j in both.pairs.sides.T.tolist():
        assert both.treatment[i] == both.treatment[j]
        assert both.domain[i] != both.domain[j]
    every = make_design(profiles, "Metadata_batch", None, Config(loss="barycentre"))
    assert every.pairs.sides.T.tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


def test_weeks_in_all_pairs_make_45_critics():
    profiles = table(np.random.default_rng(0).normal(size=(60, 2)), np.repeat([f"Week{i}" for i in range(10)], 6))
    design = make_design(profiles, "Metadata_batch", None, Config())
    assert design.pairs.sides.shape == (2, 45)
    assert float(design.pairs.weight.sum()) == pytest.approx(1.0)


def test_energy_distance_equals_a_slow_loop_and_scipy_in_one_dimension():
    from scipy.stats import energy_distance

    rng = np.random.default_rng(0)
    views = torch.from_numpy(rng.normal(size=(3, 12, 4)) * 3 + 5)
    sides = torch.tensor([[0, 0], [1, 2]])
    slow = []
    for i, j in sides.T.tolist():
        x, y = views[i], views[j]
        across = np.mean([float((a - b).norm()) for a in x for b in y])
        own = [np.mean([float((z[k] - z[m]).norm()) for k in range(12) for m in range(12) if k != m]) for z in (x, y)]
        slow.append(2 * across - sum(own))
    np.testing.assert_allclose(energy(views, sides).numpy(), slow, rtol=1e-10)
    relative = [
        d / (2 * float(torch.cdist(views[i], views[j]).mean())) for d, (i, j) in zip(slow, sides.T, strict=True)
    ]
    np.testing.assert_allclose(energy(1e3 * views, sides, relative=True).numpy(), relative, rtol=1e-10)
    line = torch.from_numpy(np.stack([rng.normal(size=2000), rng.normal(size=2000) + 1])[..., None])
    expected = energy_distance(*line[..., 0].numpy()) ** 2
    assert float(energy(line, torch.tensor([[0], [1]]))) == pytest.approx(expected, abs=5e-3)


def test_sinkhorn_is_near_exact_transport_for_distant_samples_and_near_zero_for_equal_ones():
    ot = pytest.importorskip("ot")
    pytest.importorskip("ot.batch")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)) * 0.3, rng.normal(size=(40, 3)) * 0.3 + 2
    views = torch.from_numpy(np.stack([x, y, x]))
    found = sinkhorn(views, torch.tensor([[0, 0], [1, 2]]), 0.05)
    exact = ot.emd2([], [], ot.dist(x, y, metric="euclidean"))
    assert float(found[0]) == pytest.approx(exact, rel=0.1)
    assert abs(float(found[1])) < 0.02


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Metadata_batch": "Week1"}, "nothing to align"),
        ({"f0": np.nan}, "NaN"),
        ({"Metadata_compound": "water"}, "no row of"),
    ],
)
def test_tables_that_cannot_be_aligned_are_refused_with_the_reason(change, message):
    with pytest.raises(CellbookError, match=message):
        fit(shifted_domains(rows=20).assign(**change), PRESETS["smoke"], device="cpu")


def test_a_domain_without_controls_is_named():
    profiles = shifted_domains(rows=20)
    profiles.loc[profiles["Metadata_batch"] == "Week2", "Metadata_compound"] = "AZ"
    with pytest.raises(CellbookError, match="Week2"):
        fit(profiles, PRESETS["smoke"], device="cpu")


def test_domains_without_a_common_treatment_are_refused():
    profiles = table(
        np.random.default_rng(0).normal(size=(16, 2)),
        np.repeat(["A", "B", "C", "D"], 4),
        compound=np.array(["DMSO"] * 8 + ["taxol"] * 8),
    )
    with pytest.raises(CellbookError, match="2 sets without a common treatment"):
        fit(profiles, replace(PRESETS["smoke"], treatments="replicated"), device="cpu")


def test_divergence_is_refused_with_what_to_lower():
    with pytest.raises(CellbookError, match="map_rate"):
        fit(shifted_domains(rows=20), replace(PRESETS["smoke"], map_rate=1e38, accumulator=0.0), device="cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"distance": "l2"},
        {"depth": 0},
        {"batch": 1},
        {"gamma": float("nan")},
        {"decay": 1.0},
        {"epsilon": 0.0},
        {"domains": "Metadata_batch"},
    ],
)
def test_configurations_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(CellbookError, match=next(iter(wrong))):
        Config(**wrong)


def test_rows_of_a_domain_that_was_not_seen_are_refused():
    profiles = shifted_domains(rows=20)
    aligned = fit(profiles, PRESETS["smoke"], device="cpu")
    with pytest.raises(CellbookError, match="Week9"):
        aligned.transform(profiles.assign(Metadata_batch="Week9"))
    with pytest.raises(CellbookError, match="step=5"):
        aligned.transform(profiles, 5)


@pytest.mark.gpu
def test_the_same_path_on_cuda_gives_the_same_maps():
    profiles = shifted_domains(rows=100)
    config = replace(PRESETS["smoke"], pretraining=100)
    here, there = (fit(profiles, config, device=d).levels[0].maps["M"] for d in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, atol=1e-4)
