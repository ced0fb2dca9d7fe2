"""What the page on scale says follows from the measured runs and from what is published of JUMP, by closed forms."""

import pandas as pd
import pytest

from cellbook.book import fragments, notebooks, scale

SCREEN = {"plates": 10, "wells": 40, "fields": 1000, "cells": 5000, "channels": 5, "bytes": 36e12}


def made_up(pairs=(0,)):
    """Runs of 4 plates: 2 s for an image, and a quarter of a second for a channel of a cell; two workers do 1.6."""
    rows = []
    for encoder, seconds in (("cell-count", 80 * 3 * 2.0), ("classical", 80 * 3 * 2.0 + 400 * 3 * 0.25)):
        for pair in pairs:
            for workers, faster in ((1, 1.0), (2, 1.6)):
                row = {"encoder": encoder, "workers": workers, "pair": pair, "plates": 4, "fields": 80, "cells": 400}
                row |= {"channels": 3, "crop": 10, "seconds": seconds * (1 + 9 * (pair == 1)) / faster}
                rows.append(row | {"peak_memory_mib": 512 if workers == 2 else None, "machine": "a processor"})
    return pd.DataFrame(rows)


def test_costs_are_those_of_the_images_and_of_the_channels_of_cells():
    found = scale.costs(made_up(), SCREEN, workers=4).set_index("encoder").loc["classical"]
    assert found["cutting"] == pytest.approx(1000 * 5 * 2.0 / 3600)
    assert found["encoding"] == pytest.approx(5000 * 5 * 0.25 / 3600)
    assert found["both"] == pytest.approx(found["cutting"] + found["encoding"])
    assert found["plate"] == pytest.approx(found["both"] / 10)
    assert found["days"] == pytest.approx(3 * found["plate"] / 24)  # ten plates of four workers: three each, or less
    assert found["gigabytes"] == pytest.approx(4 * 36e3 / (1000 * 5 * 2.0 + 5000 * 5 * 0.25))
    assert scale.scratch(made_up(), SCREEN) == 2 * 2 * 5 * 10 * 10 * 500


def test_rates_are_medians_over_pairs_and_the_ratio_is_that_of_a_pair():
    found = (
        scale.rates(made_up((0, 1, 2))).set_index("encoder").loc["cell-count"]
    )  # the second pair is ten times slower
    assert found["plates_one"] == pytest.approx(4 / 480)
    assert found["plates_two"] == pytest.approx(4 * 1.6 / 480)
    assert found["ratio"] == pytest.approx(1.6)
    assert found["cells"] == pytest.approx(400 / 480)
    assert found["gib"] == 0.5


def test_the_page_says_what_was_measured_and_no_more(tmp_path, monkeypatch):
    measured = fragments.read(notebooks.root() / "benchmarks" / "plates.csv")
    assert not len(measured) or set(measured.groupby(["encoder", "pair"])["workers"].apply(tuple)) == {(1, 2)}
    jump = pd.read_csv(notebooks.root() / "benchmarks" / "jump.csv")
    assert {"plates", "wells", "fields", "cells", "channels", "bytes"} == set(jump["what"])
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    assert fragments.plate_rates() == fragments.screen_costs() == "Not measured.\n"
    (tmp_path / "benchmarks").mkdir()
    made_up().to_csv(tmp_path / "benchmarks" / "plates.csv", index=False)
    jump.assign(number=jump["what"].map(SCREEN)).to_csv(tmp_path / "benchmarks" / "jump.csv", index=False)
    assert "| `classical` | 0.005 | 0.008 | 1.60 | 1 | 0.5 GiB |" in fragments.plate_rates()
    assert "| `classical` | 3 | 2 | 5 | 0.5 | 0.0 | 2215.4 |" in fragments.screen_costs()
