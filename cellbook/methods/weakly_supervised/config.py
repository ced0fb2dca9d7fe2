"""What is trained: the paper's three models, what they are trained on, and the paper's numbers as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from cellbook.errors import CellbookError
from cellbook.runs import ADDED

Model = Literal["baseline", "recurrent", "mixup", "pooled", "attended"]
Trunk = Literal["resnet18", "efficientnet_lite0"]
Head = Literal["embedded", "direct"]
Partners = Literal["any", "apart", "label", "label_apart"]
Labels = Literal["treatment", "shuffled"]
Scale = Literal["unit", "signed"]
Optimiser = Literal["adam", "sgd"]

STAGES = ("2a", "2b", "3a", "3b", "4a", "4b", "5a", "5b")  # blocks of the trunk
LAYERS = (*STAGES, "embedding")  # the pooled output of 5b is what the paper calls pool5
SETS = ("recurrent", "pooled", "attended")  # models of several cells at once
PRETRAINED = ("pool", "embedding")  # layers of a network that begins as photographs have taught it
LEAST = 32  # pixels of a crop: the trunk halves its side five times

# First learning rate, and by what it is multiplied from which share of the training on.
RATES = {
    "adam": (1e-3, {0.4: 0.1, 0.7: 0.01, 0.9: 0.001}),  # the code at submission; the rate is its function's default
    "sgd": (1e-2, {50 / 300: 0.8, 150 / 300: 0.3}),  # the configuration for BBBC021 of 2019, in 300 epochs
}


@dataclass(frozen=True)
class Config:
    """Configuration of one training; the defaults are those of the paper and, where it is silent, of its code.

    Raises
    ------
    CellbookError
        If a value cannot be meant.
    """

    # One cell at a time, a GRU over sets of cells, mixed pairs of cells; or, not in the paper, the mean over a set,
    # plain or weighted by attention.
    model: Model = "baseline"
    seed: int = 0  # of weights, batches, augmentation and shuffled labels
    # The paper prints neither; 300 epochs of 5,000 steps and 128 cells are the configuration of 2019.
    iterations: int = 1_500_000
    batch: int = 128  # cells, pairs or sets a step
    width: int = 64  # channels of the first stage; four times as many have the embedding and the GRU
    head: Head = "embedded"  # at submission; "direct" is the later code's, the GRU has neither
    dropout: float = 0.5  # of the embedding
    norm_momentum: float = 0.01  # share of a batch in the running moments of batch norm: Keras' 0.99

    set_size: int = 5  # T, cells of a set: 3, 5 and 8 in the paper
    alpha: float = 0.2  # of the Beta distribution of mixing weights
    # Which cells make a set or pair. Sets: "any" cells of one treatment, as coded, or "apart", as described: of other
    # replicates and, where there are, other weeks. Pairs: "any" two cells, as coded; "apart", as described; two of one
    # treatment, "label" or "label_apart".
    partners: Partners = "any"

    validation: tuple[int, ...] = (2,)  # replicates that validate; the others train
    controls: str = "DMSO"  # name of the untreated cells
    control_class: bool = False  # whether they are a class too: 104 classes, as in 2019
    classes: tuple[str, ...] = ()  # compounds (or variants of genes) that are classes; none named: all
    left_out_week: str | None = None  # a batch whose cells neither train nor validate
    # "shuffled" changes the labels of cells within a week, so that they tell the week and nothing else.
    labels: Labels = "treatment"

    scale: Scale = "unit"  # crops in [0, 1], the later code's; "signed": in [-1, 1], as at submission
    shift: float = 0.3  # largest translation, in sides of a crop; 0: none
    turns: bool = True  # flips and quarter turns

    optimiser: Optimiser = "adam"
    rate: float | None = None  # first learning rate; None: see RATES
    layer: str = "4a"  # what `encode` gives, one of `layers`
    # Not in the paper: a network that begins as photographs have taught it. It takes scale="signed" and layer="pool".
    trunk: Trunk = field(default="resnet18", metadata=ADDED)

    def __post_init__(self) -> None:
        for name, kind in {
            "model": Model,
            "head": Head,
            "partners": Partners,
            "labels": Labels,
            "scale": Scale,
            "optimiser": Optimiser,
            "trunk": Trunk,
        }.items():
            if getattr(self, name) not in get_args(kind):
                raise CellbookError(f"{name}={getattr(self, name)!r} is none of {', '.join(get_args(kind))}")
        for name, least in {"iterations": 1, "batch": 2, "width": 1, "set_size": 1}.items():
            if getattr(self, name) < least:
                raise CellbookError(f"{name}={getattr(self, name)} must be at least {least}")
        for name, low, high in (
            ("dropout", 0, 0.99),
            ("norm_momentum", 1e-6, 1),
            ("shift", 0, 0.9),
            ("alpha", 0.01, 100),
        ):
            if not low <= getattr(self, name) <= high:
                raise CellbookError(f"{name}={getattr(self, name)} must lie from {low} to {high}")
        if self.rate is not None and not 0 <= self.rate < float("inf"):
            raise CellbookError(f"rate={self.rate} must be a finite number, not negative")
        if self.layer not in self.layers:
            raise CellbookError(f"layer={self.layer!r} is none of this network's: {', '.join(self.layers)}")
        if self.trunk != "resnet18" and self.scale != "signed":
            raise CellbookError(f"scale={self.scale!r}: trunk {self.trunk!r} takes 'signed' grey values")
        sets = dict.fromkeys(SETS, ("any", "apart"))
        allowed = {"baseline": ("any",), **sets}.get(self.model, get_args(Partners))
        if self.partners not in allowed:
            raise CellbookError(f"partners={self.partners!r}: model {self.model!r} takes {' or '.join(allowed)}")

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of this network; an embedding has only the head of submission, and what a set gives is no feature."""
        own = LAYERS if self.trunk == "resnet18" else PRETRAINED
        return own if self.head == "embedded" and self.model not in SETS else own[:-1]


PRESETS = {
    "smoke": Config(iterations=4, batch=8, width=4, set_size=3, norm_momentum=0.1),
    # Narrow networks and a short schedule for a CPU; 0.99 of Keras would leave running moments behind the weights.
    "quick": Config(iterations=500, batch=32, width=8, rate=4e-3, set_size=3, norm_momentum=0.1),
    "paper": Config(),
}
