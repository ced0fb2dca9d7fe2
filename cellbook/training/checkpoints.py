"""Checkpoints, from which a killed training goes on as if nothing had happened, and weights, which are a product.

A checkpoint holds networks, optimisers, history and the state of every generator of random numbers; it is written
under another name and moved into place, and read without executing anything that is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cellbook.errors import CellbookError
from cellbook.files import write_atomically
from cellbook.runs import Run, known_by
from cellbook.training import replicas
from cellbook.training.history import History
from cellbook.training.state import CHECKPOINT, State

WEIGHTS = "weights.safetensors"


def save_weights(state: State, path: Path, names: Sequence[str] | None = None) -> None:
    """Write all networks, or those named, as one safetensors file, tensors named ``network.layer.weight``."""
    kept = state.networks if names is None else {name: state.networks[name] for name in names}
    weights = {f"{n}.{k}": v.contiguous() for n, net in kept.items() for k, v in net.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary))


def load_weights(state: State, path: Path) -> State:
    """Fill the networks of `state` from a file of `save_weights`."""
    stored = load_file(path, device=str(state.device))
    wanted = {f"{n}.{k}": v.shape for n, net in state.networks.items() for k, v in net.state_dict().items()}
    if {name: v.shape for name, v in stored.items()} != wanted:
        raise CellbookError(f"{path} holds the weights of other networks: give the configuration it was trained with")
    for name, network in state.networks.items():
        network.load_state_dict({k: stored[f"{name}.{k}"] for k in network.state_dict()})
    return state


def go_on(state: State, history: History, run: Run, done: int) -> None:
    """Begin with the networks of another training, as if `done` of its steps had been taken here.

    Networks that it does not have, or in another shape, stay as they are, and so do optimisers. Random numbers follow
    from the seed and the step.
    """
    stored = load_file(run.path(WEIGHTS), device=str(state.device))
    for name, network in state.networks.items():
        own = network.state_dict()
        theirs = {key: stored.get(f"{name}.{key}") for key in own}
        if all(value is not None and value.shape == own[key].shape for key, value in theirs.items()):
            network.load_state_dict(theirs)
    seed = state.config.seed + done
    torch.manual_seed(seed + 1_000_003 * replicas.rank())
    state.sampler.generator.manual_seed(seed)
    before = run.table("history")
    history.before, history.start = before[before["step"] <= done], done


def load_course(state: State, path: Path, step: int) -> State:
    """Fill those networks of `state` that were kept at a step of a course, see `codes.follow`."""
    with safe_open(path, framework="pt", device=str(state.device)) as stored:
        head, names = f"{step}.", stored.keys()
        found = {name.removeprefix(head): stored.get_tensor(name) for name in names if name.startswith(head)}
    if not found:
        raise CellbookError(f"{path} holds nothing of step {step}: give a step of the course")
    for network in dict.fromkeys(name.partition(".")[0] for name in found):
        own = {k.removeprefix(f"{network}."): v for k, v in found.items() if k.startswith(f"{network}.")}
        state.networks[network].load_state_dict(own)
    return state


def save_checkpoint(state: State, history: History, identity: str) -> None:
    """Write where a training is into its folder; losses or weights that are not finite are refused instead."""
    if history.recent:
        history.check()
    broken = state.finite()
    if broken is not None:
        raise CellbookError(f"weights of {broken} are no longer finite at step {history.step}: lower its rate")
    noise = replicas.gather_bytes(_noise(state.device))
    content = {
        "identity": identity,
        "config": known_by(state.config),
        "device": state.device.type,
        "bf16": state.bf16,
        "networks": {name: network.state_dict() for name, network in state.networks.items()},
        "optimisers": {name: optimiser.state_dict() for name, optimiser in state.optimisers.items()},
        "sampler": state.sampler.generator.get_state(),
        "noise": noise,
        "start": history.start,
        "names": history.names,
        "history": torch.tensor(history.lines, dtype=torch.float64),
        "recent": history.recent,
    }
    if replicas.rank() == 0:
        write_atomically(history.folder / CHECKPOINT, lambda temporary: torch.save(content, temporary))
    replicas.wait()


def resume(state: State, history: History, identity: str) -> None:
    """Bring `state` and `history` to where the checkpoint in the history's folder left them, if there is one."""
    replicas.wait()
    path = history.folder / CHECKPOINT
    if not path.exists():
        return
    content = read_checkpoint(path)
    here = (identity, state.device.type, replicas.world())
    if (content["identity"], content["device"], len(content["noise"])) != here:
        raise CellbookError(
            f"{path} was left by another configuration, data set, kind of device or number of processes: "
            "go on as it began, or remove it to train from the start"
        )
    state.bf16 = content.get("bf16", state.bf16)  # a training ends in the precision it began in
    for name, network in state.networks.items():
        network.load_state_dict(content["networks"][name])
    for name, optimiser in state.optimisers.items():
        optimiser.load_state_dict(content["optimisers"][name])
    state.sampler.generator.set_state(content["sampler"])
    _noise(state.device, content["noise"][replicas.rank()])
    history.names, history.lines = content["names"], content["history"].tolist()
    history.recent = [losses.to(state.device) for losses in content["recent"]]


def steps_done(path: Path) -> int:
    """Steps after which a checkpoint was written."""
    return steps_in(read_checkpoint(path))


def steps_in(content: dict[str, Any]) -> int:
    """Steps after which the content of a checkpoint was written."""
    before = content["history"][-1, 0] if len(content["history"]) else content.get("start", 0)
    return int(before) + len(content["recent"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content["recent"], content["history"]
        return dict(content)
    except Exception as error:  # torch, zipfile and pickle each have their own
        raise CellbookError(
            f"{path} cannot be read ({' '.join(str(error).split())}): remove it to train from the start"
        ) from error


def _noise(device: torch.device, restored: Tensor | None = None) -> Tensor:
    """State of torch's own generators, CPU then CUDA, as bytes on the CPU; or put such a state back."""
    cpu, cuda = torch.get_rng_state(), device.type == "cuda"
    if restored is not None:
        torch.set_rng_state(restored[: len(cpu)])
        if cuda:
            torch.cuda.set_rng_state(restored[len(cpu) :], device)
        return restored
    return torch.cat([cpu, torch.cuda.get_rng_state(device)]) if cuda else cpu
