"""On a CUDA device: recorded steps are the steps as they are written, and every method can be recorded."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cellbook.cells import CellSet
from cellbook.methods import find_method, vae_plus
from cellbook.screens.simulator import SimulatedScreen, simulate
from cellbook.training import loop, train
from cellbook.training.recorded import WARM

TRAINED = [
    *(("vae_plus", model) for model in ("vae_plus", "vae", "vae_gan")),
    *(("weakly_supervised", model) for model in ("baseline", "recurrent", "mixup")),
    *(("cytogan", model) for model in ("dcgan", "lsgan", "wgan_gp", "wgan", "began", "bigan", "vae", "ae")),
    ("vicreg", ""),
    *(("fair_cae", penalty) for penalty in ("adversary", "reversal", "confusion", "kernel")),
]
SIDES = {"vae_plus": 68, "cytogan": 48, "weakly_supervised": 64, "fair_cae": 64, "vicreg": 64}


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2**16, (48, 3, 68, 68), dtype=np.uint16)
    table = pd.DataFrame({"Metadata_compound": [f"c{k % 6}" for k in range(48)], "Metadata_concentration": 1.0})
    return CellSet(images, table, ("DNA", "Tubulin", "Actin"), 0.65)


def test_a_step_told_its_number_by_the_device_is_that_told_by_a_number(cells):
    ends = []
    for number in (int, torch.tensor):
        torch.manual_seed(0)
        config = vae_plus.Config(batch=8, latent=8, width=4, ramp=2)
        state = vae_plus.begin(config, cells, torch.device("cpu"))
        images = cells.to("cpu")
        for t in (0, 1, 3, 5, 7, 30):
            rows = vae_plus.draw(state, number(t))
            vae_plus.step(state, loop.Batch(loop.gather(images, rows), rows), number(t))
        ends.append(state)
    for name, network in ends[0].networks.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(ends[1].networks[name].state_dict()[key], value, rtol=1e-4, atol=1e-6)


class AsWritten:
    def __init__(self, update, phase, generator, start):
        self.update = update

    def __call__(self, t):
        return self.update(t)


@pytest.mark.gpu
def test_played_steps_are_the_steps_as_written(cells, tmp_path, monkeypatch):
    config = vae_plus.Config(model="ae_deterministic", batch=12, latent=8, width=8, iterations=WARM + 20)
    monkeypatch.setattr(vae_plus, "draw", lambda state, t: torch.arange(12, device=state.device)[None])
    played = train(vae_plus, config, cells, tmp_path / "played", "cuda")
    monkeypatch.setattr(loop, "Recorded", AsWritten)
    written = train(vae_plus, config, cells, tmp_path / "written", "cuda")
    lines = [pd.read_parquet(tmp_path / name / "history.parquet") for name in ("played", "written")]
    pd.testing.assert_frame_equal(*lines, rtol=2e-2)
    for name, network in played.networks.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(written.networks[name].state_dict()[key], value, rtol=0.1, atol=1e-2)


@pytest.mark.gpu
def test_played_draws_and_noise_differ_from_step_to_step(cells, tmp_path, monkeypatch):
    seen = []
    plain = vae_plus.draw

    def draw(state, t):
        rows = plain(state, t)
        state.labels.setdefault("seen", torch.zeros_like(rows)).copy_(rows)
        return rows

    monkeypatch.setattr(vae_plus, "draw", draw)
    cuda = torch.device("cuda")
    torch.manual_seed(0)
    state = vae_plus.begin(vae_plus.Config(batch=12, latent=8, width=8, iterations=12, ramp=1), cells, cuda)
    losses = []
    for found in loop.steps(vae_plus, state, cells.to(cuda)):
        seen.append(tuple(state.labels["seen"].flatten().tolist()))
        losses.append(found["pixel"].item())
    assert len(set(seen)) == 12
    assert len(set(losses)) == 12


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "model"), TRAINED)
def test_every_method_is_recorded_and_its_losses_stay_numbers(name, model, tmp_path):
    method = find_method(name)
    changed = {"iterations": WARM + 3} | ({"model": model} if model else {})
    if name == "fair_cae":
        lengths = dict.fromkeys(("pretraining", "teaching", "rounds"), WARM + 3)
        changed = {"penalty": model, "updates": None if model == "kernel" else 2, **lengths}
    config = replace(method.PRESETS["smoke"], **changed)
    cells = simulate(SimulatedScreen(wells=2, controls=2, cells=3, crop=SIDES[name]))
    state = train(method, config, cells, tmp_path, "cuda")
    assert state.finite() is None
    assert pd.read_parquet(tmp_path / "history.parquet").drop(columns="step").notna().any().all()
