"""Time a step of all critics at once beside a loop over critics and beside autograd, in one run, and check they agree.

    python benchmarks/wdn_critics.py --csv

Ten domains make 45 critics of the paper's size. Every form takes the same minibatches, 100 rows a domain, and the same
interpolates. "stacked" is what the training runs; "autograd" is stacked critics whose slopes come from autograd, which
differentiates twice; "loop" is one critic after the other by autograd, as the published code builds them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from table import add_option, write
from torch import Tensor

from cellbook.methods.wdn.config import Config
from cellbook.methods.wdn.critics import Critics, layers, rmsprop_
from cellbook.methods.wdn.sampling import Pairs
from cellbook.runs import choose_device

DOMAINS, BATCH = 10, 100


def pairs() -> Pairs:
    sides = torch.triu_indices(DOMAINS, DOMAINS, 1)
    return Pairs(sides, torch.full((sides.shape[1],), 1 / sides.shape[1], dtype=torch.float64))


def loss(theta: Tensor, x: Tensor, y: Tensor, epsilon: Tensor, config: Config) -> Tensor:
    """W - g of each critic (P,), from its own rows x and y (P, B, n), by autograd."""
    w = layers(theta, x.shape[2], config.width, config.depth)

    def f(z: Tensor) -> Tensor:
        for weight, bias in zip(w.weights, w.biases, strict=True):
            z = F.softplus(z @ weight.transpose(1, 2) + bias[:, None, :])
        return (z * w.v[:, None, :]).sum(dim=2)

    z = torch.lerp(y, x, epsilon[:, :, None]).requires_grad_(True)
    slope = torch.autograd.grad(f(z).sum(), z, create_graph=True)[0]
    penalty = config.gamma * (slope.norm(dim=2) - 1).clamp_min(0).square().mean(dim=1)
    return f(x).mean(dim=1) - f(y).mean(dim=1) - penalty


def by_autograd(critics: Critics, sides: Tensor, views: Tensor, epsilon: Tensor) -> None:
    theta = critics.theta.detach().requires_grad_(True)
    value = (critics.weight * loss(theta, views[sides[0]], views[sides[1]], epsilon, critics.config)).sum()
    gradient = torch.autograd.grad(value, theta)[0]
    rmsprop_(critics.theta, gradient, critics.square, critics.config, critics.config.critic_rate)


def by_loop(critics: Critics, sides: Tensor, views: Tensor, epsilon: Tensor) -> None:
    for p in range(len(critics.theta)):
        theta = critics.theta[p : p + 1].detach().requires_grad_(True)
        x, y = views[sides[0, p]][None], views[sides[1, p]][None]
        value = (critics.weight[p] * loss(theta, x, y, epsilon[p : p + 1], critics.config)).sum()
        gradient = torch.autograd.grad(value, theta)[0]
        one = slice(p, p + 1)
        rmsprop_(critics.theta[one], gradient, critics.square[one], critics.config, critics.config.critic_rate)


def seconds(step: Callable[[int], None], steps: int, device: str) -> float:
    """Seconds a step, after a few that do not count."""
    for i in range(5):
        step(i)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(steps):
        step(i)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def measure(n: int, depth: int, steps: int, loop: int, device: str) -> dict[str, float | int | bool]:
    config, both = Config(depth=depth), pairs()
    on, sides = torch.device(device), both.sides.to(device)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(DOMAINS, BATCH, n, generator=generator).to(on) for _ in range(20)]
    places = [torch.rand(len(both.weight), BATCH, generator=generator).to(on) for _ in range(20)]
    shift = 0.3 * torch.randn(DOMAINS, 1, n, generator=generator).to(on)
    forms = {name: Critics(both, n, config, on) for name in ("stacked", "autograd", "loop")}

    def step(name: str) -> Callable[[int], None]:
        critics = forms[name]
        if name == "stacked":
            return lambda i: critics.ascend(draws[i % 20] + shift, places[i % 20]) and None
        call = by_autograd if name == "autograd" else by_loop
        return lambda i: call(critics, sides, draws[i % 20] + shift, places[i % 20])

    # The same steps from the same start must lead to the same critics.
    for i in range(3):
        for name in forms:
            step(name)(i)
    apart = max(float((forms["stacked"].theta - forms[name].theta).abs().max()) for name in ("autograd", "loop"))
    taken = {
        "stacked": seconds(step("stacked"), steps, device),
        "autograd": seconds(step("autograd"), max(1, steps // 3), device),
        "loop": seconds(step("loop"), loop, device),
    }
    return {
        "n": n,
        "depth": depth,
        **{f"{name}_steps_per_s": 1 / value for name, value in taken.items()},
        "stacked_s_per_1000": 1000 * taken["stacked"],
        "autograd_over_stacked": taken["autograd"] / taken["stacked"],
        "loop_over_stacked": taken["loop"] / taken["stacked"],
        "largest_difference": apart,
        "agree": apart < 1e-5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of the stacked form that are timed")
    parser.add_argument("--loop", type=int, default=20, help="steps of the loop that are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    add_option(parser, __file__)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    rows = [measure(n, depth, options.steps, options.loop, device) for n in (50, 192) for depth in (1, 2)]
    for row in rows:
        print(
            f"n {row['n']:>3}, depth {row['depth']}: {row['stacked_steps_per_s']:7.0f} steps/s stacked, "
            f"{row['autograd_steps_per_s']:6.0f} autograd (x {row['autograd_over_stacked']:4.1f}), "
            f"{row['loop_steps_per_s']:6.1f} loop (x {row['loop_over_stacked']:5.1f}), agree: {row['agree']}"
        )
    kept = [
        {"what": f"n {row['n']}, depth {row['depth']}", "value": row["stacked_steps_per_s"], "unit": "steps a second"}
        | {"faster": row[f"{beside}_over_stacked"], "beside": beside}
        for row in rows
        for beside in ("autograd", "loop")
    ]
    write(options.csv, kept, device, options.threads)


if __name__ == "__main__":
    main()
