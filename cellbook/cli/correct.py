"""What `cellbook correct` reads from its words, refuses before anything is computed, and reports."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cellbook.corrections import METHODS, Corrected, Settings
from cellbook.errors import CellbookError, nearest
from cellbook.profiles.table import check_finite, drop_unusable, features, metadata


def column_of(profiles: pd.DataFrame, name: str) -> str:
    """Metadata column that is meant by a name with or without the prefix: "batch" is "Metadata_batch"."""
    known = metadata(profiles)
    for column in (name, f"Metadata_{name}"):
        if column in known:
            return column
    plain = [column.removeprefix("Metadata_") for column in known]
    hint = nearest(name.removeprefix("Metadata_"), plain, f"there are {', '.join(plain) or 'none'}")
    raise CellbookError(f"domain {name!r} is no metadata column of the table; {hint}")


def usable(profiles: pd.DataFrame, *, drop: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """The table if all features are finite; with `drop` what can be used of it, and a note of what was dropped."""
    if drop:
        kept, dropped = drop_unusable(profiles)
        found = bool(dropped.rows or dropped.not_finite or dropped.constant)
        return kept.reset_index(drop=True), [str(dropped)] if found else []
    check_finite(profiles)
    return profiles, []


def report(found: Corrected, method: str, settings: Settings, controls: str, output: str) -> dict[str, Any]:
    """What was done and how well the domain can be told before and after, as plain values."""
    before, after = found.before, found.after
    measured = before is not None and after is not None
    return {
        "method": method,
        "does": METHODS[method].does,
        "domain": settings.by,
        "controls": controls,
        "rows": len(found.profiles),
        "features": len(features(found.profiles)),
        "output": output,
        "held_out": found.held_out,
        "control_rows": before.n if measured else None,
        "domains": before.n_batches if measured else None,
        "accuracy_before": before.accuracy if measured else None,
        "accuracy_after": after.accuracy if measured else None,
        "noise": after.noise_baseline if measured else None,
        "largest": before.majority if measured else None,
        "training": found.training,
        "notes": found.notes,
    }


def in_words(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{report['method']}: {report['does']}"]
    if report["held_out"]:
        lines += [
            f"{report['domain']} of {report['control_rows']} {report['controls']} rows told by logistic regression, "
            f"{report['held_out']} held out (lower is better):",
            f"  before  {100 * report['accuracy_before']:5.1f} %",
            f"  after   {100 * report['accuracy_after']:5.1f} %",
            f"  chance  {100 * report['largest']:5.1f} % by the largest of {report['domains']}, "
            f"{100 * report['noise']:.1f} % from noise",
        ]
    else:
        lines.append(f"fewer than three {report['controls']} rows in a domain: leakage cannot be measured")
    if training := report["training"]:
        lines.append(f"map steps after means and covariances: {training['steps']}; {training['stopped']}")
        if "before" in training:
            lines.append(
                "distance between held-out controls (1 apart; 0, or less by chance, alike): {before:.4f} before, "
                "{start:.4f} after means and covariances, {after:.4f} after the maps".format(**training)
            )
    lines += [f"note: {note}" for note in report["notes"]]
    lines.append(f"written: {report['output']}, {report['rows']} rows, {report['features']} features")
    return "\n".join(lines)
