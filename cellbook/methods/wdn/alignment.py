"""What a training leaves: maps of every domain at every checkpoint, to be applied to any profile table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from cellbook.errors import CellbookError
from cellbook.files import read_json, write_atomically, write_json
from cellbook.profiles.groups import group_rows
from cellbook.profiles.table import check_finite, features, replace_features

MAPS, FACTS = "maps.safetensors", "alignment.json"


@dataclass(frozen=True)
class Level:
    """The maps of one column of domains."""

    by: str
    names: list[str]  # (D,)
    steps: np.ndarray  # int (C,), map steps at the checkpoints; the first is 0, the identity
    maps: dict[str, np.ndarray] = field(repr=False)  # name -> float32 (C, D, ...), see `maps.identity`

    @property
    def affine(self) -> bool:
        """Whether means and maps commute."""
        return "V" not in self.maps

    def at(self, checkpoint: int) -> dict[str, np.ndarray]:
        """Maps at one checkpoint, float64."""
        return {name: value[checkpoint].astype(np.float64) for name, value in self.maps.items()}

    def map_rows(self, x: np.ndarray, codes: np.ndarray, checkpoint: int) -> np.ndarray:
        """Map rows (rows, n) by their domains (rows,), in float64."""
        maps, out = self.at(checkpoint), np.empty_like(x, dtype=np.float64)
        for d in np.unique(codes):
            rows = codes == d
            out[rows] = x[rows] @ maps["M"][d] + maps["b"][d]
            if not self.affine:
                out[rows] += np.tanh(x[rows] @ maps["U"][d] + maps["a"][d]) @ maps["V"][d]
        return out


@dataclass(frozen=True)
class Alignment:
    """Maps of all levels at all checkpoints; the checkpoints of several levels follow each other."""

    features: list[str]
    levels: tuple[Level, ...]
    history: pd.DataFrame = field(repr=False)  # the distance and the penalty in the course of the training

    @property
    def steps(self) -> np.ndarray:
        """Map steps taken at every checkpoint, (C,), over all levels."""
        parts, done = [np.zeros(1, dtype=np.int64)], 0
        for level in self.levels:
            parts.append(level.steps[1:] + done)
            done += int(level.steps[-1])
        return np.concatenate(parts)

    @property
    def affine(self) -> bool:
        """Whether means and maps commute."""
        return all(level.affine for level in self.levels)

    def place(self, checkpoint: int) -> list[int]:
        """Checkpoint of each level at a checkpoint of all: those before are at their end, those after at 0."""
        if not -len(self.steps) <= checkpoint < len(self.steps):
            raise CellbookError(f"checkpoint {checkpoint} is not there: there are {len(self.steps)}, from 0 on")
        left, places = checkpoint % len(self.steps), []
        for level in self.levels:
            places.append(min(left, len(level.steps) - 1))
            left -= places[-1]
        return places

    def find(self, step: int) -> int:
        """Checkpoint of a map step; an error if the maps of that step were not kept."""
        found = np.flatnonzero(self.steps == step)
        if not len(found):
            raise CellbookError(f"step={step} has no checkpoint: maps were kept at {', '.join(map(str, self.steps))}")
        return int(found[0])

    def codes(self, profiles: pd.DataFrame) -> np.ndarray:
        """Domain of every row at every level, (rows, levels); domains not seen in training are refused."""
        return np.stack([group_rows(profiles, level.by, level.names)[1] for level in self.levels], axis=1)

    def map_rows(self, x: np.ndarray, codes: np.ndarray, checkpoint: int) -> np.ndarray:
        """Map rows (rows, n) of known domains (rows, levels), in float64."""
        for level, code, place in zip(self.levels, codes.T, self.place(checkpoint), strict=True):
            x = level.map_rows(x, code, place)
        return x

    def affine_maps(self, codes: np.ndarray, checkpoint: int) -> tuple[np.ndarray, np.ndarray]:
        """Compose the levels' maps for domains (k, levels): x M + b with M (k, n, n) and b (k, n), float64."""
        n = len(self.features)
        m, b = np.broadcast_to(np.eye(n), (len(codes), n, n)), np.zeros((len(codes), n))
        moved = False
        for level, code, place in zip(self.levels, codes.T, self.place(checkpoint), strict=True):
            if place == 0:
                continue
            maps = level.at(place)
            here, shift = maps["M"][code], maps["b"][code]
            # The product with the identity would be most of the time of a bootstrap.
            m, b = (m @ here, (b[:, None, :] @ here)[:, 0] + shift) if moved else (here, shift)
            moved = True
        return m, b

    def transform(self, profiles: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
        """Map all rows, controls and treatments, as at map step `step`, or as at the last."""
        checkpoint = len(self.steps) - 1 if step is None else self.find(step)
        x = check_finite(profiles, self.features)
        return replace_features(profiles, self.map_rows(x, self.codes(profiles), checkpoint), self.features)

    def save(self, folder: Path) -> None:
        """Write maps, names and history into a folder."""
        tensors = {
            f"{i}.{name}": np.ascontiguousarray(value)
            for i, level in enumerate(self.levels)
            for name, value in level.maps.items()
        }
        write_atomically(folder / MAPS, lambda path: save_file(tensors, path))
        levels = [{"by": v.by, "names": v.names, "steps": v.steps.tolist()} for v in self.levels]
        write_json(folder / FACTS, {"features": self.features, "levels": levels})
        write_atomically(folder / "history.parquet", lambda path: self.history.to_parquet(path, index=False))

    @classmethod
    def load(cls, folder: Path) -> Alignment:
        """Read what `save` wrote."""
        facts = read_json(folder / FACTS)
        if not (folder / MAPS).exists():
            raise CellbookError(f"no file {folder / MAPS}: the maps were not kept; train anew")
        tensors = load_file(folder / MAPS)
        levels = tuple(
            Level(
                v["by"],
                v["names"],
                np.array(v["steps"]),
                {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{i}.")},
            )
            for i, v in enumerate(facts["levels"])
        )
        return cls(facts["features"], levels, pd.read_parquet(folder / "history.parquet"))


def unmoved(profiles: pd.DataFrame, by: str = "Metadata_batch") -> Alignment:
    """The alignment that changes nothing, so that any other correction is evaluated and resampled in the same way."""
    names, x = group_rows(profiles, by)[0], features(profiles)
    maps = {"M": np.eye(len(x), dtype=np.float32)[None, None], "b": np.zeros((1, 1, len(x)), dtype=np.float32)}
    each = {name: np.repeat(value, len(names), axis=1) for name, value in maps.items()}
    return Alignment(x, (Level(by, names, np.array([0]), each),), pd.DataFrame())
