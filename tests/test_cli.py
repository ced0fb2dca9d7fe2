"""The command line as its users meet it: what is printed, and how bad input ends."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cellbook.cli.app import parse_given
from cellbook.errors import CellbookError
from cellbook.profiles import write_profiles
from cellbook.runs import obtain


@pytest.fixture(scope="module")
def wells_file(planted, tmp_path_factory):
    path = tmp_path_factory.mktemp("profiles") / "wells.parquet"
    write_profiles(planted, path)
    return path


def test_score_prints_one_object_a_measure_and_k(run_main, wells_file):
    code, out, _ = run_main("score", wells_file, "--protocol", "tabak2020", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["measure"], row["k"], row["scored"]) for row in rows if row["measure"] == "NSCB"] == [
        ("NSCB", 1, 92),
        ("NSCB", 2, 180),
        ("NSCB", 3, 268),
        ("NSCB", 4, 330),
    ]
    for row in rows:
        assert row["accuracy"] == pytest.approx(row["correct"] / row["scored"])
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1


def test_score_without_json_is_a_table_for_people(run_main, wells_file):
    code, out, _ = run_main("score", wells_file, "--protocol", "ljosa2013")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["measure", "k", "accuracy"]
    assert [line.split()[0] for line in lines[1:3]] == ["NSC", "NSCB"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_treatments_and_wells_in_any_format_score_alike(run_main, planted, tmp_path, suffix):
    path = tmp_path / f"wells{suffix}"
    write_profiles(planted, path)
    _, out, _ = run_main("score", path, "--protocol", "ljosa2013", "--json")
    counts = [(row["correct"], row["scored"]) for row in json.loads(out)]
    from cellbook.metrics import score

    assert counts == [(s.correct, s.scored) for s in score(planted, "ljosa2013")]


def spoil_nan(table):
    table.loc[[3, 7], "planted_1"] = np.nan


def spoil_constant(table):
    table["planted_2"] = 1.5


def spoil_moa(table):
    table.loc[table["Metadata_compound"] == "taxol", "Metadata_moa"] = None


def spoil_conflict(table):
    table.loc[table.index[table["Metadata_compound"] == "taxol"][0], "Metadata_moa"] = "Epithelial"


def spoil_text(table):
    table["planted_3"] = table["planted_3"].astype(object)
    table.loc[0, "planted_3"] = "many"


def spoil_missing(table):
    del table["Metadata_batch"]


def spoil_duplicate(table):
    first, second = table.index[table["Metadata_compound"] == "taxol"][:2]
    for name in ("Metadata_plate", "Metadata_well", "Metadata_concentration", "Metadata_batch"):
        table.loc[second, name] = table.loc[first, name]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_nan, ["planted_1", "2"]),
        (spoil_constant, ["planted_2", "same value"]),
        (spoil_moa, ["Metadata_moa", "missing"]),
        (spoil_conflict, ["taxol", "Metadata_moa"]),
        (spoil_text, ["planted_3", "1"]),
        (spoil_missing, ["Metadata_batch"]),
        (spoil_duplicate, ["well"]),
    ],
)
def test_bad_tables_end_in_one_sentence_and_exit_code_2(run_main, planted, tmp_path, spoil, words):
    table = planted.copy()
    spoil(table)
    path = tmp_path / "spoiled.csv"
    table.to_csv(path, index=False)
    code, out, err = run_main("score", path, "--protocol", "ljosa2013")
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "nothing.parquet", "--protocol", "ljosa2013"], "nothing.parquet"),
        (["run", "nopage"], "no page 'nopage'"),
        (["run", "classical", "-p", "sede=1"], "no parameter sede"),
        (["run", "classical", "-p", "seed=one"], "parameter 'seed' takes int"),
        (["run", "classical", "-p", "seed"], "-p takes name=value"),
        (["run", "classical", "-p", "seed=-1"], "'seed' takes a whole number from 0 to 2147483647, got -1"),
        (["run", "classical", "-p", "seed=2147483648"], "'seed' takes a whole number from 0"),
        (["run", "lafarge2019", "-p", "week_effect=.inf"], "'week_effect' takes"),
        (["run", "lafarge2019", "-p", "followed=-3"], "parameter 'followed' takes 0 or more, got -3"),
        (["features", "nowhere", "o.csv", "--encoder", "nonsense"], "or a trained model as PAGE/MODEL"),
        (["run", "classical", "-p", "screen="], "'screen' takes a word"),
        (["results", "--store", "nowhere"], "--store nowhere is no folder"),
        (["train", "vae_plus", "--cells", "nowhere"], "nowhere is no cell set"),
        (["train", "tsne", "--cells", "nowhere"], "no method 'tsne' that can be trained: there is "),
        (["publish", "classical", "--from", "nowhere"], "no finished execution"),
    ],
)
def test_bad_words_end_in_one_sentence_and_exit_code_2(run_main, words, message):
    code, _, err = run_main(*words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_unknown_protocol_lists_the_known(run_main, wells_file):
    code, _, err = run_main("score", wells_file, "--protocol", "tabak")
    assert code == 2
    assert "tabak2020" in err
    assert "lafarge2019" in err


def test_truncated_file_is_named(run_main, wells_file, tmp_path):
    path = tmp_path / "short.parquet"
    path.write_bytes(wells_file.read_bytes()[:5000])
    code, _, err = run_main("score", path, "--protocol", "ljosa2013")
    assert code == 2
    assert "short.parquet" in err


def test_unwritable_results_are_named(run_main, tmp_path):
    (tmp_path / "file").write_text("")
    given = ["-p", f"results={tmp_path / 'file'}", "-p", "preset=smoke", "-p", "screen=planted"]
    code, _, err = run_main("run", "classical", *given)
    assert code == 2
    assert "cannot write" in err


def test_parameters_given_twice_are_refused():
    with pytest.raises(CellbookError, match="given twice"):
        parse_given(["a=1", "a=2"])


def test_pages_and_results_are_listed_as_json(run_main, tmp_path):
    _, out, _ = run_main("pages", "--json")
    assert json.loads(out)["classical"]["preset"]["default"] == "quick"
    code, out, _ = run_main("results", "--json", "--store", tmp_path)
    assert code == 0
    assert isinstance(json.loads(out), list)


@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_what_run_and_train_have_made_is_listed_from_any_folder(run_main, monkeypatch, tmp_path, folder):
    from cellbook.book import notebooks

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "_toc.yml").write_text("")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path / folder)

    def make(place):
        (place / "a.txt").write_text("a")

    by_page = obtain(tmp_path / "runs", "page", 1, {}, "data", make)
    by_train = obtain("runs", "training", 1, {}, "data", make)
    named = obtain(tmp_path / "other", "named", 1, {}, "data", make)
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "run.json").write_text("{")
    code, out, _ = run_main("results", "--json")
    assert code == 0
    assert sorted(row["key"] for row in json.loads(out)) == sorted([by_page.key, by_train.key])
    _, out, _ = run_main("results", "--json", "--store", "other")
    assert [row["key"] for row in json.loads(out)] == [named.key]


def test_a_missing_score_and_a_name_are_written_where_the_output_is_not_utf_8(planted, tmp_path):
    lonely = planted[
        planted["Metadata_moa"].isin(["DMSO", "Actin disruptors"]) | (planted["Metadata_compound"] == "DMSO")
    ]
    lonely = lonely.groupby("Metadata_compound", group_keys=False).head(3).assign(Metadata_batch="W\u00b5")
    path = tmp_path / "\u00b5.parquet"
    write_profiles(lonely, path)
    command = [sys.executable, "-m", "cellbook.cli", "score", str(path), "--protocol", "ljosa2013"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    nscb = next(line for line in done.stdout.decode("ascii").splitlines() if line.startswith("NSCB"))
    assert nscb.split()[2:5] == ["-", "-", "0"]
    for output in (b"\xe2\x80\x93", b"\xb5"):
        assert output not in done.stdout


def test_a_clone_whose_line_ends_git_would_change_has_the_same_bytes(tmp_path):
    from cellbook.book import notebooks

    if not (notebooks.root() / ".git").exists():
        pytest.skip("the package does not lie in a clone")
    source = ["git", "clone", "--quiet", "--no-local", "--depth=1", "-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    subprocess.run([*source, f"file://{notebooks.root()}", str(tmp_path / "clone")], check=True, capture_output=True)
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=tmp_path / "clone", capture_output=True, text=True, check=True
    )
    assert [line for line in listed.stdout.splitlines() if "w/crlf" in line or "w/mixed" in line] == []
    assert len(listed.stdout.splitlines()) > 100
    path = "book/results/classical/numbers.csv"
    assert (tmp_path / "clone" / path).read_bytes() == (notebooks.root() / path).read_bytes()


def test_console_script_runs_without_a_terminal(wells_file):
    command = [sys.executable, "-m", "cellbook.cli", "score", str(wells_file), "--protocol", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert pd.Series(done.stderr.splitlines()).str.startswith("error:").sum() == 1
