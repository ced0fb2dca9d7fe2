"""Time a training step of VAE+ here beside a plain loop and beside pythae, in one run with equal networks.

    python benchmarks/train_loops.py --threads 1 --csv
    python benchmarks/train_loops.py --device cuda --steps 50

"here" is `vae_plus.step` as training calls it: images resident on the device as they are stored, one Adam, channels
last, in float32 and, where the device has it, in bf16, memory kept from step to step, nothing read back. "plain" is the
same networks, layer after layer as the paper draws them, and the same objective in a loop as published code commonly
has it: a `Dataset` of images in host memory, read and scaled one cell at a time in numpy, a `DataLoader`, float32, an
optimiser a network without foreach or fused kernels, weight decay in a Python loop, gradients of the autoencoder's
terms left in the discriminator and thrown away, `.item()` of every term. As in the published code, reals,
reconstructions and originals go through its discriminator in one pass; three passes, with batch norm's moments of their
own, are a further line. That "here" and "plain" compute the same is checked first.

pythae has no VAE+; its VAE/GAN, in its own model and trainer, stands beside the one here. Their objectives differ
(pythae's discriminator sees no reconstructions, kernels do not decay), so that ratio says less than the others.

Cells are random numbers: the work is the same. Images a second count the cells that are reconstructed. All lines are
timed in turns, some steps of each a round. Times are medians over steps after warm-up, on CUDA between events, without
waiting for the device inside the loop; there float32 convolutions are TF32, torch's default. On a CPU ratios are of the
process's own processor time, which others on the machine disturb less; that of loading workers is not in it. "Memory
kept" gives the other loops what `cellbook.machine.kept_memory` gives trainings here: by itself glibc fetches the memory
of every large array anew, a third of a step here.

Tried on a CPU and left: three channels padded to eight, in bf16, make a first convolution take twice as long; its
gradient for the image, the slowest part, takes the same for 3 to 16 channels.

The share of bf16's peak counts the convolutions that the step here needs.
"""

import argparse
import importlib.util
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from plain_loop import HostCells, Plain, T, copies, draw_each
from table import add_option, write
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from train_step import random_cells

from cellbook.cells import CellSet
from cellbook.machine import kept_memory
from cellbook.methods import vae_plus
from cellbook.methods.vae_plus.networks import SIDE
from cellbook.pixels import channel_max, gather
from cellbook.runs import choose_device, device_name
from cellbook.training import Batch, State
from cellbook.training.state import has_bf16

CELLS = 16  # a treatment
GAN, KEPT = "VAE/GAN", "memory kept"  # in names of lines
BESIDE = ("plain: VAE+, float32", "pythae: VAE/GAN, float32")  # what the others, and those of VAE/GAN, are beside
PYTHAE = "pip install --no-deps pythae==0.1.2 && pip install pydantic cloudpickle imageio"


def begin(model: str, cells: CellSet, device: torch.device, width: int, bf16: bool | None = None) -> State:
    """Begin a training here, as every line does: from equal weights."""
    torch.manual_seed(0)
    state = vae_plus.begin(vae_plus.Config(model=model, width=width), cells, device)
    state.bf16 = state.bf16 if bf16 is None else bf16
    return state


def compare(cells: CellSet, device: torch.device, width: int) -> dict[str, float]:
    """Largest relative difference of "here" and "plain" in float32 from equal weights, batches and noise.

    Of the terms, and by the Euclidean norm of each network's gradient and update. Both in one memory format: in the
    other one, rounding moves a few maxima of the pooling, and with them gradients by a per cent. Adam's first update is
    about the sign of a gradient, which of those near 0 is rounding.
    """
    state = begin("vae_plus", cells, device, width, bf16=False)
    for network in state.networks.values():
        network.to(memory_format=torch.contiguous_format)
    plain, before, rows = Plain(state), copies(state), vae_plus.draw(state, 0)
    x, real = torch.stack([HostCells(cells)[i] for i in rows.flatten().tolist()]).to(device).chunk(2)
    torch.manual_seed(1)
    here = vae_plus.step(state, Batch(gather(cells.to(device), rows), rows), T)
    torch.manual_seed(1)
    there = plain.step(x, real)
    apart = {"terms": max(abs(here[name].item() / value - 1) for name, value in there.items())}

    def flat(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().flatten().double() for tensor in tensors])

    for name, network in plain.networks.items():
        own, other, old = (list(n.parameters()) for n in (state.networks[name], network, before[name]))
        one, two = (flat(p.grad for p in weights) for weights in (own, other))
        apart[f"gradients of {name}"] = ((one - two).norm() / two.norm()).item()
        apart[f"update of {name}"] = ((flat(own) - flat(other)).norm() / (flat(other) - flat(old)).norm()).item()
    return apart


def make_pythae(state: State, cells: CellSet, batch: int):
    """Make pythae's trainer of its VAE/GAN around copies of the networks, with its own optimisers."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAEGAN, VAEGANConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import CoupledOptimizerAdversarialTrainer, CoupledOptimizerAdversarialTrainerConfig

    layer = state.config.terms.layers[0]

    class Encoder(BaseEncoder):
        def forward(self, x):
            mu, logvar = self.network(x)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z))

    class Discriminator(BaseDiscriminator):
        depth = 5

        def forward(self, x, output_layer_levels=None):
            if output_layer_levels is None:  # pythae takes probabilities
                return ModelOutput(embedding=torch.sigmoid(self.network(x)[1]))
            # No further than asked for, as pythae's own networks do.
            return ModelOutput(**{f"embedding_layer_{layer}": self.network.features(x, depth=layer)[-1]})

    parts = encoder, decoder, judge = Encoder(), Decoder(), Discriminator()
    encoder.network, decoder.network, judge.network = copies(state).values()
    # A margin never reached: all three networks learn at every step, as they do here.
    model = VAEGAN(VAEGANConfig((3, SIDE, SIDE), state.config.latent, reconstruction_layer=layer, margin=1e9), *parts)
    settings = CoupledOptimizerAdversarialTrainerConfig(
        per_device_train_batch_size=batch, no_cuda=state.device.type == "cpu"
    )
    images = channel_max(torch.from_numpy(cells.images))  # pythae wants all of them as float32 in host memory
    trainer = CoupledOptimizerAdversarialTrainer(model, BaseDataset(images, torch.zeros(len(images))), None, settings)
    for part in ("encoder", "decoder", "discriminator"):
        getattr(trainer, f"set_{part}_optimizer")()
    model.train()
    return trainer


def time_steps(call: Callable[[], object], steps: int, warmup: int, device: torch.device, block: int = 1) -> np.ndarray:
    """Seconds and processor seconds, (2, steps), of means of `block` steps: batches of workers come in bunches."""
    cuda, marks = device.type == "cuda", []
    for k in itertools.count():
        if k >= warmup and (k - warmup) % block == 0:
            event = torch.cuda.Event(enable_timing=True) if cuda else None
            if event:
                event.record()
            marks.append((event, time.perf_counter(), time.process_time()))
            if len(marks) > steps:
                break
        call()
    wall, processor = np.diff([mark[1:] for mark in marks], axis=0).T / block
    if cuda:
        torch.cuda.synchronize()
        wall = np.array([a.elapsed_time(b) / 1000 for (a, *_), (b, *_) in itertools.pairwise(marks)]) / block
    return np.stack([wall, processor])


class Table:
    """Times all lines in turns, so that what else the machine does meets all of them."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device, self.lines, self.rows = args, device, {}, {}
        self.measure = "seconds" if device.type == "cuda" else "cpu_seconds"

    def add(self, name: str, call: Callable[[], object], workers: int = 0, work: int | None = None) -> None:
        """Enter a line; `work` is the operations that its step needs, for the share of the device's peak."""
        self.lines[name] = call, workers, work

    def time(self) -> None:
        """Time every line in every round, and print medians over all steps."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.lines}
        for _ in range(self.args.rounds):
            for name, (call, workers, _) in self.lines.items():
                # Two batches a worker are ready before the first step: time what comes after them.
                warmup = self.args.warmup + 2 * workers
                with kept_memory() if "here" in name or KEPT in name else nullcontext():  # as training has it
                    found[name].append(time_steps(call, self.args.steps, warmup, self.device, max(1, workers)))
        print(f"{'':50} {'s/step':>9} {'spread':>9} {'CPU s':>9} {'images/s':>10} {'x line 1':>9} {'% of peak':>10}")
        for name, times in found.items():
            self.report(name, np.concatenate(times, axis=1))

    def report(self, name: str, times: np.ndarray) -> None:
        """Print a line and keep it."""
        seconds, processor = (float(value) for value in np.median(times, axis=1))
        row = {"seconds": seconds, "spread": float(np.ptp(times[0])), "cpu_seconds": processor}
        row["images_per_second"] = self.args.batch / seconds
        row["ratio"] = row[self.measure] / next(iter(self.rows.values()), row)[self.measure]
        text = "{:9.4f} {:9.4f} {:9.4f} {:10.1f} {:9.3f}".format(*row.values())
        work = self.lines[name][2]
        if work and self.device.type == "cuda":
            text += f" {work / seconds / (1e10 * self.args.peak_tflops):10.2f}"
        self.rows[name] = row
        print(f"{len(self.rows):2} {name:47} {text}", flush=True)

    def kept(self) -> Iterator[dict[str, object]]:
        """The rows of the file: a step's time, and how many times as fast it is as the line it belongs beside."""
        unit = "s a step" if self.device.type == "cuda" else "processor s a step"
        for name, row in self.rows.items():
            beside = next((other for other in self.rows if other.startswith(BESIDE[GAN in name])), None)
            faster = {"faster": self.rows[beside][self.measure] / row[self.measure], "beside": beside} if beside else {}
            yield {"what": name, "value": row[self.measure], "unit": unit, **faster}


def time_here(table: Table, cells: CellSet, device: torch.device, model: str = "vae_plus") -> int:
    """Lines of the step here; the operations it needs."""
    images, name = cells.to(device), GAN if model == "vae_gan" else "VAE+"
    work = 0
    for bf16 in (False, True) if has_bf16(device, on_cpu=True) else (False,):
        state = begin(model, cells, device, table.args.width, bf16=bf16)

        def whole(on: State = state) -> dict[str, Tensor]:
            rows = vae_plus.draw(on, 0)
            return vae_plus.step(on, Batch(gather(images, rows), rows), T)

        with FlopCounterMode(display=False) as counter:
            whole()
        work = counter.get_total_flops()
        table.add(f"here: {name}, {state.precision}", whole, work=work)
    if model == "vae_plus":
        table.add("here: drawing, gathering, scaling", lambda: channel_max(gather(images, vae_plus.draw(state, 0))))
    return work


def time_plain(table: Table, cells: CellSet, device: torch.device, work: int) -> None:
    """Lines of the plain loop."""
    state = begin("vae_plus", cells, device, table.args.width, bf16=False)
    plain, three = Plain(state), Plain(state, passes=3)

    def batches(workers: int) -> Iterator[Tensor]:
        pin = device.type == "cuda"
        return iter(DataLoader(HostCells(cells), batch_sampler=draw_each(cells), num_workers=workers, pin_memory=pin))

    def load(loaded: Iterator[Tensor]) -> Tensor:
        return next(loaded).to(device)

    def whole(loaded: Iterator[Tensor]) -> dict[str, float]:
        return plain.step(*load(loaded).chunk(2))

    for workers in table.args.workers:
        table.add(f"plain: VAE+, float32, {workers} workers", partial(whole, batches(workers)), workers, work)
        table.add(f"plain: loading alone, {workers} workers", partial(load, batches(workers)), workers)
    fixed = next(batches(0)).to(device).chunk(2)
    table.add("plain: computing alone", lambda: plain.step(*fixed), work=work)
    table.add("plain: computing alone, three passes", lambda: three.step(*fixed), work=work)
    if device.type == "cpu":
        table.add(f"plain: computing alone, {KEPT}", lambda: plain.step(*fixed))
        table.add(f"plain: computing alone, three passes, {KEPT}", lambda: three.step(*fixed))


def time_pythae(table: Table, cells: CellSet, device: torch.device) -> None:
    """Lines of VAE/GAN here and in pythae, if it is installed."""
    time_here(table, cells, device, "vae_gan")
    if importlib.util.find_spec("pythae") is None:
        print(f"   pythae is not installed: {PYTHAE}")
        return
    logging.disable(logging.WARNING)  # it reports its set-up, line by line
    trainer = make_pythae(begin("vae_gan", cells, device, table.args.width), cells, table.args.batch)
    loaded = itertools.chain.from_iterable(itertools.repeat(trainer.train_loader))  # epoch after epoch
    fixed = trainer._set_inputs_to_device(next(loaded))

    def compute(batch=fixed) -> list[float]:  # the inside of pythae's training loop
        output = trainer.model(trainer._set_inputs_to_device(batch), epoch=1, uses_ddp=False)
        trainer._optimizers_step(output)
        parts = [output.encoder_loss, output.decoder_loss, output.discriminator_loss]
        return [loss.item() for loss in (*parts, sum(parts))]

    table.add(f"pythae: {GAN}, float32", lambda: compute(next(loaded)))
    table.add(f"pythae: {GAN}, float32, computing alone", compute)
    if device.type == "cpu":
        table.add(f"pythae: {GAN}, float32, computing alone, {KEPT}", compute)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=104, help="treatments, of which a batch has one cell each")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2, help="of each line in a round")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each line before them, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the plain loop's DataLoader")
    parser.add_argument("--threads", type=int, default=None)
    # bf16 on dense matrices, NVIDIA's data sheet of the H200 SXM: 1,979 TFLOP/s are with sparsity, without it half.
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="the device's peak, used on CUDA")
    add_option(parser, __file__)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(choose_device(args.device))
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # for all lines, as training has it
    cells = random_cells(CELLS * args.batch, args.batch)
    name, threads = device_name(str(device)), torch.get_num_threads()
    print(f"{name}, {threads} threads, batch {args.batch}, width {args.width}")
    apart = compare(cells, device, args.width)
    print(f"here and plain in float32 differ by {', '.join(f'{value:.1e} ({name})' for name, value in apart.items())}")
    table = Table(args, device)
    time_plain(table, cells, device, time_here(table, cells, device))
    time_pythae(table, cells, device)
    table.time()
    write(args.csv, table.kept(), str(device), threads)


if __name__ == "__main__":
    main()
