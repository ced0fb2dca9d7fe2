"""One step of a training: every critic step, then one update of each other player.

Players take turns, so that the generator meets the discriminator that has just moved. Batch norm has the moments of
the batch whoever is updated (in the published code the discriminator is shown images made with running moments, and
the generator learns with others). No discriminator has batch norm, so that real and made images may be one batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.methods.cytogan import losses as loss
from cellbook.methods.cytogan import networks as nets
from cellbook.methods.cytogan.config import ADVERSARIAL, AUTOENCODERS, Config
from cellbook.methods.cytogan.treatments import Conditions, known
from cellbook.pixels import channel_max
from cellbook.training import Batch, Sampler, State, place, treatment_codes


def ranged(x: Tensor, config: Config) -> Tensor:
    """Images (N, c, H, W) in [0, 1] as the networks take them: in [-1, 1] but for the autoencoders, channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    return x if config.model in AUTOENCODERS else 2 * x - 1


def scaled(images: Tensor, config: Config) -> Tensor:
    """Stored images as the networks take them: each channel of each crop divided by its own maximum; see `ranged`.

    Crops are taken as they are: what the paper does before, centring a cell and blackening what lies outside of its
    outline, is the business of who cuts them. Scaling by the crop's maximum removes intensity itself, as in the paper.
    """
    return ranged(channel_max(images), config)


def begin(config: Config, cells: CellSet, device: torch.device) -> State:
    """Networks, optimisers and sampler at step 0."""
    settings, (height, width) = config.settings, cells.images.shape[-2:]
    if (height, width) != (config.side, config.side):
        raise CellbookError(
            f"side={config.side}: the crops have {height} x {width} pixels; crop anew, or give their side if it is a "
            "multiple of 16"
        )
    if len(cells) < settings.batch:
        raise CellbookError(f"batch={settings.batch} is more than the {len(cells)} cells: give a smaller batch")
    sampler = Sampler(np.zeros(len(cells), dtype=np.int64), device, config.seed)
    networks, labels = {}, {}
    if config.condition != "none":
        labels["treatment"] = torch.tensor(treatment_codes(cells.table), device=device)
        networks["condition"] = Conditions(known(cells.table), config.condition, config.embedding)
    networks |= _networks(config, len(cells.channels), networks["condition"].width if networks else 0)
    for network in networks.values():
        place(network, device)
    return State(config, device, sampler, networks, _optimisers(config, networks, device), labels=labels)


def _networks(config: Config, channels: int, condition: int) -> dict[str, nn.Module]:
    """The players of a model."""
    settings = config.settings
    size = channels, config.side, settings.width, settings.latent
    if config.model in ADVERSARIAL:
        judge = nets.Discriminator(*size, condition, config.input_noise, config.code_slope)
        return {"discriminator": judge, "generator": nets.Generator(*size, condition)}
    if config.model == "began":
        judge = nets.BeganDiscriminator(*size, condition, config.input_noise)
        return {"discriminator": judge, "generator": nets.BeganDecoder(*size, condition, made=True)}
    if config.model == "bigan":
        return {
            "discriminator": nets.BiganDiscriminator(*size, config.input_noise, config.dropout),
            "generator": nets.Generator(*size),
            "encoder": nets.BiganEncoder(*size, config.input_noise),
        }
    variational = config.model == "vae"
    filters = [4 * settings.width, 2 * settings.width, settings.width] if variational else [settings.width] * 2
    around = channels, config.side, filters, settings.latent
    return {"encoder": nets.Encoder(*around, variational=variational), "decoder": nets.Decoder(*around)}


def _optimisers(config: Config, networks: dict[str, nn.Module], device: torch.device) -> dict:
    """One for each player; an autoencoder is one player, and an embedding of conditions belongs to both."""
    settings, cuda = config.settings, device.type == "cuda"

    def optimiser(rate: float, *names: str) -> torch.optim.Optimizer:
        weights = [p for name in names if name in networks for p in networks[name].parameters()]
        if config.model == "wgan":
            return torch.optim.RMSprop(weights, lr=rate, capturable=cuda)
        betas = settings.beta1, settings.beta2
        return torch.optim.Adam(weights, lr=rate, betas=betas, fused=cuda, capturable=cuda)

    if config.model in AUTOENCODERS:
        return {"autoencoder": optimiser(settings.generator_rate, "encoder", "decoder")}
    made = {
        "discriminator": optimiser(settings.critic_rate, "discriminator", "condition"),
        "generator": optimiser(settings.generator_rate, "generator", "condition"),
    }
    return made | ({"encoder": optimiser(settings.generator_rate, "encoder")} if config.model == "bigan" else {})


def draw(state: State, t: int) -> Tensor:
    """Rows of cells, each equally likely, (critic steps, N); the paper goes through all of them, shuffled."""
    settings = state.config.settings
    return state.sampler.uniform(settings.critic_steps * settings.batch).view(settings.critic_steps, -1)


def step(state: State, batch: Batch, t: int | Tensor) -> dict[str, Tensor]:
    """One step after t others: its losses by name, of several critic steps those of the last."""
    set_rates(state, t)
    model = {"began": _began, "bigan": _bigan, "vae": _autoencoder, "ae": _autoencoder}.get(state.config.model)
    found = model(state, scaled(batch.images[0], state.config), batch.rows[0]) if model else _adversarial(state, batch)
    return {name: value.detach() for name, value in found.items()}  # a loss that is kept would keep its graph


def set_rates(state: State, t: int | Tensor) -> None:
    """Rates after t steps: they fall by the factor `decay` every so many; a number on the device if t is one."""
    settings = state.config.settings
    if settings.decay == 1:
        return
    fallen = settings.decay ** (t // settings.every)
    for name, optimiser in state.optimisers.items():
        rate = settings.critic_rate if name == "discriminator" else settings.generator_rate
        for group in optimiser.param_groups:
            group["lr"] = rate * fallen


def draw_noise(state: State, n: int) -> Tensor:
    """z, (n, 100)."""
    size = n, state.config.settings.latent
    if state.config.prior == "uniform":
        return 2 * torch.rand(size, device=state.device) - 1
    return torch.randn(size, device=state.device)


def told(state: State, rows: Tensor) -> Tensor:
    """Conditions of cells by row, (N,) -> (N, k); of no columns where the model has none."""
    if "condition" not in state.networks:
        return torch.empty(len(rows), 0, device=state.device)
    return state.networks["condition"](state.labels["treatment"][rows])


def _make(state: State, n: int, condition: Tensor) -> Tensor:
    """Images of fresh noise, (n, c, H, W)."""
    with state.autocast():
        return state.networks["generator"](draw_noise(state, n), condition)


def _update(state: State, player: str, objective: Tensor) -> None:
    """Move one player, and nobody else, down its objective."""
    optimiser = state.optimisers[player]
    optimiser.zero_grad(set_to_none=True)
    objective.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()


def _adversarial(state: State, batch: Batch) -> dict[str, Tensor]:
    """DCGAN, LSGAN, WGAN and WGAN-GP: critic steps, each on cells of its own, then one of the generator."""
    config, judge = state.config, state.networks["discriminator"]
    wasserstein = config.model in ("wgan", "wgan_gp")
    distance = loss.cross_entropy if config.model == "dcgan" else loss.squared
    found = {}
    for images, rows in zip(batch.images, batch.rows, strict=True):
        x, condition, n = scaled(images, config), told(state, rows), len(rows)
        with torch.no_grad():
            made = _make(state, n, condition)
        with state.autocast():
            outputs = judge(torch.cat([made, x]), torch.cat([condition, condition]))  # (2N,)
        if wasserstein:
            found["discriminator"] = outputs[:n].mean() - outputs[n:].mean()
        else:
            found["discriminator"] = distance(outputs, loss.targets(n, n, config.smoothing, state.device))
        objective = found["discriminator"]
        if config.model == "wgan_gp":  # in float32: a gradient of a gradient
            found["penalty"] = loss.gradient_penalty(lambda v, c=condition: judge(v, c), x, made)
            objective = objective + config.penalty * found["penalty"]
        _update(state, "discriminator", objective)
        if config.model == "wgan":
            _clip(judge, config.clip)
    condition = told(state, batch.rows[-1])  # the graph of the last is used up
    made = _make(state, batch.rows.shape[-1], condition)
    with state.autocast():
        outputs = judge(made, condition)  # (N,)
    found["generator"] = -outputs.mean() if wasserstein else distance(outputs, torch.ones_like(outputs))
    _update(state, "generator", found["generator"])
    return found


def _began(state: State, x: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """BEGAN: the discriminator autoencodes real cells well and made ones badly, weighed by k; then the generator."""
    config, judge, n = state.config, state.networks["discriminator"], len(x)
    condition = told(state, rows)
    with torch.no_grad():
        made = _make(state, n, condition)
    shown = torch.cat([made, x])
    with state.autocast():
        seen = judge(shown, torch.cat([condition, condition]))  # (2N, c, H, W), of images with noise added
    l_made, l_real = loss.reconstruction(made, seen[:n]), loss.reconstruction(x, seen[n:])
    k = judge.k.clone()
    _update(state, "discriminator", l_real - k * l_made)
    with torch.no_grad():
        judge.k.copy_(loss.balanced(k, l_real, l_made, config.gamma, config.gain))
        measure = l_real + (config.gamma * l_real - l_made).abs()
    condition = told(state, rows)  # the graph of the last is used up
    made = _make(state, n, condition)
    with state.autocast():
        seen = judge(made, condition)
    generator = loss.reconstruction(made, seen)  # the image moves, and so does what the autoencoder makes of it
    _update(state, "generator", generator)
    return {"real": l_real, "made": l_made, "k": k, "convergence": measure, "generator": generator}


def _bigan(state: State, x: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """BiGAN: discriminator, generator and encoder in turn; the last two want pairs to be taken for the other kind."""
    config, n = state.config, len(x)
    judge, generator, encoder = (state.networks[name] for name in ("discriminator", "generator", "encoder"))
    nothing = told(state, rows)  # no condition
    with state.autocast():
        with torch.no_grad():
            z = draw_noise(state, n)
            pairs = torch.cat([generator(z, nothing), x]), torch.cat([z, encoder(x)])
        logits = judge(*pairs)  # (2N,)
    found = {"discriminator": loss.cross_entropy(logits, loss.targets(n, n, config.smoothing, state.device))}
    _update(state, "discriminator", found["discriminator"])
    z = draw_noise(state, n)
    with state.autocast():
        logits = judge(generator(z, nothing), z)
    found["generator"] = loss.cross_entropy(logits, torch.ones_like(logits))
    _update(state, "generator", found["generator"])
    with state.autocast():
        logits = judge(x, encoder(x))
    found["encoder"] = loss.cross_entropy(logits, torch.zeros_like(logits))
    _update(state, "encoder", found["encoder"])
    return found


def _autoencoder(state: State, x: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """VAE and autoencoder: encoder and decoder together."""
    encoder, decoder, d = state.networks["encoder"], state.networks["decoder"], state.config.settings.latent
    with state.autocast():
        code = encoder(x)
        mu, logvar = code[:, :d], code[:, d:]
        # Noise of deviation 1, which the divergence assumes; the published code draws 0.1.
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu) if state.config.model == "vae" else mu
        x_hat = decoder(z)
    found = {"pixel": loss.squared_error(x, x_hat)}
    if state.config.model == "vae":
        found["kl"] = loss.divergence(mu, logvar)
    _update(state, "autoencoder", sum(found.values()))
    return found


def _clip(network: nn.Module, limit: float) -> None:
    """Bring all weights within the limit."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.clamp_(-limit, limit)
