"""Time finding and cropping the cells of whole fields beside scikit-image's `blob_dog` and a plain loop over cells.

    python benchmarks/extraction.py --csv

Fields of 1024 x 1280 pixels are simulated first, so that precision and recall within 10 pixels can stand beside the
speed. Each way reads the three TIFFs of a field, finds its nuclei and cuts 68 x 68 crops; reading alone is the bound.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.feature import blob_dog
from table import add_option, write

from cellbook.screens.crops import crop
from cellbook.screens.extraction import extract
from cellbook.screens.fields import index_fields, read_field
from cellbook.screens.nuclei import detect, match_centres

SIZE = 68


def loop_crops(field: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Cut crops one by one, those over the edge left out."""
    half, (height, width) = SIZE // 2, field.shape[1:]
    crops = []
    for y, x in centres:
        if half <= y <= height - half and half <= x <= width - half:
            crops.append(field[:, y - half : y + half, x - half : x + half])
    return np.stack(crops) if crops else np.empty((0, len(field), SIZE, SIZE), field.dtype)


def blobs(image: np.ndarray) -> np.ndarray:
    """Nuclei by scikit-image alone, at the scales of MCF-7 nuclei at 20x."""
    scaled = np.log1p(image.astype(np.float32))
    scaled = (scaled - np.median(scaled)) / np.ptp(scaled)
    return blob_dog(scaled, min_sigma=7, max_sigma=16, sigma_ratio=1.6, threshold=0.05)[:, :2].astype(np.int64)


def work(paths: list, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Read, find and crop one field; centres and crops."""
    field = read_field(paths)[0]
    if way == "read":
        return np.empty((0, 2), np.int64), np.empty((0, 3, SIZE, SIZE), field.dtype)
    if way in ("otsu", "dog"):
        centres = detect(field[0], way)
        return centres, crop(field, centres, SIZE)[0]
    centres = blobs(field[0]) if way == "blob_dog, loop" else detect(field[0], "otsu")
    return centres, loop_crops(field, centres)


def main() -> None:
    # Not above: worker processes import this file again, and would all load torch.
    from cellbook.screens.simulator import plate_map, preset, simulate_fields

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--times", type=int, default=2, help="repetitions, the shortest counts")
    parser.add_argument("--workers", type=int, default=2, help="processes of the whole extraction")
    parser.add_argument("--folder", type=Path, help="where the fields are written for a while (8 MB each)")
    add_option(parser, __file__)
    args = parser.parse_args()
    config = preset("smoke")
    counts = plate_map(config).groupby("Metadata_plate", sort=False).size()
    plates = list(counts.index[: int(np.searchsorted(counts.cumsum(), args.fields)) + 1])
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        table = simulate_fields(config, Path(folder) / "raw", sites=1, plates=plates).iloc[: args.fields]
        truth = pd.read_parquet(Path(folder) / "raw" / "truth.parquet")
        index = index_fields(table, Path(folder) / "raw")
        paths = index[[f"path_{name}" for name in ("DNA", "Tubulin", "Actin")]].to_numpy(object).tolist()
        known = [
            truth.loc[
                (truth["Metadata_plate"] == plate) & (truth["Metadata_well"] == well), ["Metadata_y", "Metadata_x"]
            ]
            for plate, well in zip(index["Metadata_plate"], index["Metadata_well"], strict=True)
        ]
        work(paths[0], "otsu")  # warm-up, of the file cache too
        for way in ("read", "otsu", "dog", "otsu, loop", "blob_dog, loop"):
            times = []
            for _ in range(args.times):
                start = time.perf_counter()
                found = [work(field, way) for field in paths]
                times.append(time.perf_counter() - start)
            seconds = min(times)
            matched = [match_centres(c, k.to_numpy()) for (c, _), k in zip(found, known, strict=True)]
            pairs, cells = sum(len(m.pairs) for m in matched), sum(len(c) for c, _ in found)
            row = {"way": way, "fields_per_second": len(paths) / seconds, "cells": cells}
            row |= {"precision": pairs / cells if cells else None, "recall": pairs / sum(map(len, known))}
            rows.append(row)
        for workers in sorted({1, args.workers}):
            start = time.perf_counter()
            done = extract(
                table,
                Path(folder) / "raw",
                Path(folder) / f"cells{workers}",
                illumination=False,
                workers=workers,
                progress=False,
            )
            seconds = time.perf_counter() - start
            row = {"way": f"extract, {workers} processes, with saving", "fields_per_second": len(table) / seconds}
            rows.append(row | {"cells": done.cells, "precision": None, "recall": None})
    slowest = next(row for row in rows if row["way"] == "blob_dog, loop")["fields_per_second"]
    print(f"{len(table)} fields of 1024 x 1280 pixels")
    print(f"{'way':38} {'fields/s':>8} {'x blob_dog':>10} {'cells':>6} {'precision':>9} {'recall':>7}")
    for row in rows:
        row["ratio"] = row["fields_per_second"] / slowest
        shown = [f"{row[name]:.3f}" if row[name] is not None and row["way"] != "read" else "-" for name in
                 ("precision", "recall")]  # fmt: skip
        print(
            f"{row['way']:38} {row['fields_per_second']:8.2f} {row['ratio']:10.1f} {row['cells']:6} {shown[0]:>9}"
            f" {shown[1]:>7}"
        )
    beside = {"unit": "fields a second", "beside": "blob_dog, loop"}
    kept = [{"what": row["way"], "value": row["fields_per_second"], "faster": row["ratio"], **beside} for row in rows]
    write(args.csv, kept, threads=args.workers)


if __name__ == "__main__":
    main()
