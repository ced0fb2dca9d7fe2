"""Malformed parameters and claims files, drawn by a seeded generator: one sentence each, and nothing half-written."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import yaml

from cellbook import claims
from cellbook.book import build, notebooks
from cellbook.configure import configure
from cellbook.errors import CellbookError
from cellbook.methods import vae_plus, wdn

SEED, PER_KIND = 20260, 350
VALUES = [
    *("", " ", "[", "]", "{a", "*x", "&x", "@3", "`x`", "%TAG", "!!python/object/apply:os.getcwd []", "a: b: c", "- ["),
    *("010", "0x1F", "0b11", "0o17", "1:30", "1_000", "1e400", "-1e400", "nan", ".nan", "inf", "-.inf", "1e-400"),
    *("-1", "0", "7", "1.5", "-0.0", "9" * 25, "9" * 5000, "1,5", "1 2", "None", "null", "~", "true", "NO", "on"),
    *("2020-01-01", "2020-13-45", "quick", "smoke", "paper", "µ", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\x00", "\x1b[0m"),
    *("a\nb", "\ud800", "'", '"', "''", "#", "a #b", "../..", "~/x", "/", "x" * 5000, "con", "-", "--force", "=", "=="),
]


def words(draw: random.Random, known: list[str]) -> list[str]:
    """Some words for -p: known and misspelt names with all sorts of values, or no pair at all."""
    found = []
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(known) if draw.random() < 0.8 else draw.choice([*VALUES[:12], draw.choice(known)[:-1]])
        found.append(draw.choice([f"{name}={draw.choice(VALUES)}"] * 8 + [name, f"={draw.choice(VALUES)}"]))
    return found


def refused_or(read: Callable[[], object]) -> object:
    """What is read, or None if it is refused in one sentence."""
    try:
        return read()
    except CellbookError as error:
        if not str(error).strip() or "Traceback" in str(error):
            pytest.fail(f"no sentence: {error}")
        return None


def test_malformed_parameters_of_pages_end_in_one_sentence_or_in_values_of_their_types(run_main, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given: list[dict[str, object]] = []

    def execute(page, values, kept, echo=False):
        given.append(values)
        raise CellbookError("not executed here")

    monkeypatch.setattr(notebooks, "execute", execute)
    monkeypatch.setattr(build.freshness, "code_digest", lambda: "code")
    draw, kinds = random.Random(SEED), {page: notebooks.parameters(page) for page in notebooks.pages()}
    # Reading a notebook's source takes most of the time, and it is the same every time.
    monkeypatch.setattr(notebooks, "parameters", kinds.__getitem__)
    for _ in range(PER_KIND):
        page = draw.choice(list(kinds))
        pairs = [word for word in words(draw, [*kinds[page]]) if not word.startswith("results=")]
        said = [part for word in [f"results={tmp_path / 'runs'}", *pairs] for part in ("-p", word)]
        code, out, err = run_main("run", page, *said)
        assert (code, out) == (2, ""), pairs
        assert err.startswith(("error: ", "Usage: ")), pairs
        assert "Traceback" not in err
    assert 10 < len(given) < PER_KIND / 2
    for values in given:
        for value in values.values():
            assert type(value) in (str, int, float, bool)
            assert not isinstance(value, float) or np.isfinite(value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "/dev/null/x", "/proc/nothing"])
def test_a_folder_of_results_that_cannot_be_is_one_sentence(run_main, name):
    code, out, err = run_main("run", "classical", "-p", "screen=planted", "-p", f"results={name}")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("method", [vae_plus, wdn])
def test_malformed_fields_of_a_configuration_are_refused_or_read_in_their_types(method):
    draw = random.Random(SEED + 1)
    example = next(iter(method.PRESETS.values()))
    known = ["preset", *vars(example)]
    for _ in range(PER_KIND):
        found = refused_or(lambda: configure(method, {draw.choice(known): draw.choice(VALUES)}))
        assert found is None or type(found) is type(example)


def spoiled(draw: random.Random, whole: dict) -> str:
    """A claims file with one to three faults, as text."""
    content = {
        "screen": whole["screen"],
        **{part: [dict(e) for e in whole[part][:2]] for part in ("numbers", "claims")},
    }
    odd = [None, True, -1, 3, 1.5, float("nan"), float("inf"), "", "text", [], ["a"], {}, {"a": 1}, "9" * 5000]
    for _ in range(draw.randint(1, 3)):
        part = draw.choice(["numbers", "claims"])
        entries = content[part] if isinstance(content.get(part), list) and content[part] else None
        fault = draw.randrange(8)
        if fault == 0:
            content[draw.choice(["screen", part, "numbres"])] = draw.choice(odd)
        elif fault == 1:
            content.pop(draw.choice(["screen", part]), None)
        elif entries and fault == 2:
            entries[draw.randrange(len(entries))] = draw.choice(odd)
        elif entries and fault == 3:
            entries.append(entries[0])
        elif entries and isinstance(entries[0], dict) and entries[0]:
            name = draw.choice(list(entries[0]))
            entries[0][draw.choice([name, name, name + "s"])] = draw.choice(odd)
            if fault == 4:
                entries[0].pop(name)
    text = yaml.safe_dump(content, allow_unicode=True)
    for _ in range(draw.randint(0, 2)):
        place = draw.randrange(len(text) + 1)
        cut = draw.choice([0, 0, 1, 40])
        text = (
            text[:place]
            + draw.choice(["", "[", "}", ":", "*x", "!!python/name:os.system", "\t", "- "])
            + text[place + cut :]
        )
    return text


def test_malformed_claims_are_refused_or_whole(tmp_path):
    whole = yaml.safe_load((notebooks.root() / "book" / "claims" / "classical.yml").read_text(encoding="utf-8"))
    path, draw, taken = tmp_path / "claims.yml", random.Random(SEED + 2), 0
    for number in range(PER_KIND):
        text = spoiled(draw, whole).encode()
        if number % 10 == 0:
            text = draw.choice(
                [b"", b"\xff\xfe\x00", b"\x00", text[: len(text) // 2] + b"\xe4", b"[" * 2000, b"screen: 2020-13-45"]
            )
        path.write_bytes(text)
        found = refused_or(lambda: claims.load(path))
        if found is None:
            continue
        taken += 1
        assert isinstance(found["screen"], str)
        for entry in found["numbers"]:
            assert set(entry) >= claims.NUMBER_FIELDS
            assert np.isfinite(entry["value"])
            assert entry["digits"] >= 0
        ids = [entry["id"] for part in ("numbers", "claims") for entry in found[part]]
        assert len(ids) == len(set(ids))
    assert 0 < taken < PER_KIND / 2
    assert [item.name for item in tmp_path.iterdir()] == ["claims.yml"]
