"""Trained models of the published pages: their weights as one archive, and their codes of anybody's cells."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load
from torch import Tensor

from cellbook.cells import CellSet
from cellbook.configure import restore
from cellbook.errors import CellbookError, nearest, some
from cellbook.files import read_json, write_atomically
from cellbook.methods import find_method
from cellbook.runs import Run, choose_device
from cellbook.training import State
from cellbook.training.checkpoints import WEIGHTS
from cellbook.training.codes import code_table

MANIFEST = "models.json"
TRAINED = "trainings.json"  # of a published page, as `cellbook.book.trained` writes it
MADE_UP = 512  # cells that networks are built for, before trained weights are put in: more than a batch


@dataclass(frozen=True)
class Model:
    """A trained model, named by page and variant, as in "lafarge2019/VAE+"; key, method and the rest are its run's."""

    name: str
    repeat: int
    key: str
    method: str
    version: int
    config: dict[str, Any]
    commit: str
    sha256: str
    bytes: int

    @property
    def file(self) -> str:
        """Where an archive holds its weights."""
        return f"{self.key}.safetensors"


def published(results: Path) -> pd.DataFrame:
    """Trainings of networks that the published pages are from: name, repeat and key, in the order of the pages."""
    found = []
    for path in sorted(results.glob("*/runs/*/trainings.parquet")):
        table = pd.read_parquet(path)
        if "variant" in table:  # of the others none is a network that encodes cells
            name = f"{path.parents[2].name}/" + table["variant"].astype(str)
            found.append(table[["repeat", "key"]].assign(name=name))
    names = ["name", "repeat", "key"]
    return pd.concat(found, ignore_index=True)[names] if found else pd.DataFrame(columns=names)


def stored(trainings: pd.DataFrame, store: Path) -> list[Model]:
    """Those trainings whose weights are in a store."""
    found = []
    for name, repeat, key in trainings.itertuples(index=False):
        run = Run(store / key)
        if not (run.folder / WEIGHTS).is_file() or run.fault():
            continue
        record = run.record
        about = record["method"], record["method_version"], record["config"], record["commit"]
        found.append(Model(name, int(repeat), key, *about, **record["products"][WEIGHTS]))
    return found


def pack(models: list[Model], store: Path, out: Path) -> str:
    """Write an archive of weights with what is known of each model, and return the archive's SHA-256.

    The same models give the same bytes. Weights that are not those their run wrote are refused.
    """

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            listing = json.dumps([asdict(model) for model in models], indent=1, ensure_ascii=False)
            archive.writestr(zipfile.ZipInfo(MANIFEST), listing)
            for model in {model.key: model for model in models}.values():
                archive.writestr(
                    zipfile.ZipInfo(model.file), checked(model, (store / model.key / WEIGHTS).read_bytes())
                )

    write_atomically(out, write)
    return sha256(out.read_bytes()).hexdigest()


def checked(model: Model, content: bytes) -> bytes:
    """Weights of a model, if they are those that its run wrote."""
    if sha256(content).hexdigest() != model.sha256:
        raise CellbookError(f"the weights of {model.name} ({model.key}) are not those that were trained: get them anew")
    return content


def find(name: str, repeat: int, place: Path, results: Path) -> tuple[Model, bytes]:
    """A model by its name and its weights, from an archive or from a store of runs."""
    if not place.is_file():
        known = published(results)
        if name not in set(known["name"]):
            there = f"there are {some(known['name'], 8)}"
            raise CellbookError(f"--encoder {name} is no model of a page: {nearest(name, known['name'], there)}")
        model = choose(name, repeat, stored(known, place), place)
        return model, checked(model, (place / model.key / WEIGHTS).read_bytes())
    contents = unpack(place, name)
    model = choose(name, repeat, [one for one, _ in contents], place)
    if checksums(results).get(model.key, model.sha256) != model.sha256:
        raise CellbookError(f"the weights of {name} in {place} are others than those of its page: get the archive anew")
    return model, checked(model, next(weights for one, weights in contents if one == model))


def unpack(place: Path, name: str) -> list[tuple[Model, bytes]]:
    """Models of an archive, and the weights of those of a name."""
    try:
        with zipfile.ZipFile(place) as archive:
            models = [Model(**entry) for entry in json.loads(archive.read(MANIFEST))]
            if not models:
                raise ValueError("no models")
            return [(model, archive.read(model.file) if model.name == name else b"") for model in models]
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise CellbookError(f"{place} is no archive of models: make one with `cellbook weights`") from error


def checksums(results: Path) -> dict[str, str]:
    """SHA-256 of the weights of the published trainings by their keys, as the repository keeps it."""
    records = [record for path in sorted(results.glob(f"*/{TRAINED}")) for record in read_json(path).values()]
    return {one["key"]: one["products"][WEIGHTS]["sha256"] for one in records if WEIGHTS in one["products"]}


def compare(place: Path, results: Path) -> tuple[list[str], int]:
    """How an archive differs from the checksums of the repository, a sentence a model; and how many models it has."""
    known, models, found = checksums(results), [one for one, _ in unpack(place, "")], []
    with zipfile.ZipFile(place) as archive:
        for model in models:  # one at a time: together they may not fit into memory
            fault = ""
            try:
                if known.get(model.key) != sha256(archive.read(model.file)).hexdigest():
                    fault = "other bytes than were published" if model.key in known else "not published"
            except (KeyError, zipfile.BadZipFile, zlib.error, EOFError):
                fault = f"its bytes are damaged or not there: get {place.name} anew"
            found += [f"{model.name} (repeat {model.repeat}): {fault}"] * bool(fault)
    return found, len(models)


def choose(name: str, repeat: int, models: list[Model], place: Path) -> Model:
    """The model of a name; an error that lists the others if it is not there."""
    for model in models:
        if (model.name, model.repeat) == (name, repeat):
            return model
    near = [model for model in models if model.name == name] or models
    known = some([f"{model.name} (repeat {model.repeat})" for model in near]) if near else "no model"
    there = f"{place} has {known}" if place.exists() else f"there is no {place}"
    raise CellbookError(
        f"--encoder {name}, --repeat {repeat}: {there}; give by --weights the archive or the store that has it"
    )


# --- codes of other cells -------------------------------------------------------------------------------------------


def encode(model: Model, weights: bytes, cells: CellSet, device: str = "cpu") -> pd.DataFrame:
    """Codes of cells by a trained model: metadata of the cells, then the features z0, z1, and so on.

    The cells need not be those of the training, nor have its labels: what reads labels, as a classifier's last layer
    does, is left out where it does not fit.
    """
    module = find_method(model.method)
    if model.version != module.VERSION:
        raise CellbookError(
            f"{model.name} is of version {model.version} of {model.method}, which is at {module.VERSION} now: take "
            f"the checkout of commit {model.commit}"
        )
    config = restore(module.Config, {name: value for name, value in model.config.items() if name != "course"})
    with torch.random.fork_rng():
        state = module.begin(config, made_up(config, cells), torch.device(choose_device(device)))
    fill(state, load(weights))
    try:
        return code_table(cells, module.encode(state, cells))
    except KeyError as error:
        _, channels, *size = cells.images.shape
        raise CellbookError(
            f"--encoder {model.name} takes no crops of {channels} channels and {size[0]} x {size[1]} pixels: cut them "
            "as those that it was trained on, see its page"
        ) from error


def fill(state: State, tensors: dict[str, Tensor]) -> None:
    """Give networks their trained weights, and drop those networks that have other shapes than the trained ones."""
    for name, network in list(state.networks.items()):
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in network.state_dict().items()}:
            network.load_state_dict(own)
        else:
            del state.networks[name]


def made_up(config: Any, like: CellSet) -> CellSet:
    """Cells of the size and channels of others, with such labels as a training with this configuration asks for."""
    n = np.arange(MADE_UP)
    well = n // 4
    compounds = ["DMSO", *(getattr(config, "classes", ()) or ("a", "b"))]
    batches = [*filter(None, [getattr(config, "left_out_week", None)]), "first", "second"]
    replicates = [*getattr(config, "validation", ()), *range(100, 103)]
    labels = {"batch": (batches, 1), "replicate": (replicates, len(batches)), "compound": (compounds, 12)}
    table = pd.DataFrame({f"Metadata_{k}": [v[i] for i in well // step % len(v)] for k, (v, step) in labels.items()})
    table = table.assign(
        Metadata_concentration=1.0, Metadata_plate=table["Metadata_batch"], Metadata_well=well.astype(str)
    )
    images = np.broadcast_to(np.ones((), like.images.dtype), (MADE_UP, *like.images.shape[1:]))
    return replace(like, images=images, table=table.assign(Metadata_moa=table["Metadata_compound"]), known_as="made up")
