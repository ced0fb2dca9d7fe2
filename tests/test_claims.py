import pandas as pd
import pytest
import yaml

from cellbook import claims
from cellbook.claims import Verdict, judge_claims, judge_number, judge_numbers, load
from cellbook.errors import CellbookError

ENTRY = {
    "id": "a",
    "source": "Somebody 2020",
    "where": "Table 1",
    "value": 0.90,
    "digits": 2,
    "protocol": "p",
    "measure": "NSC",
    "k": 1,
    "setting": "s",
}
MEASURED = pd.DataFrame(
    [{"setting": "s", "protocol": "p", "measure": "NSC", "k": 1, "value": 0.8, "low": 0.7, "high": 0.92}]
).assign(correct=80, scored=100)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (0.90, claims.REPRODUCED),
        (0.914, claims.REPRODUCED),  # one treatment of 100 and half a printed digit
        (0.886, claims.REPRODUCED),
        (0.95, claims.PARTLY),
        (0.99, claims.NOT),
    ],
)
def test_number_rule(measured, verdict):
    assert judge_number(0.90, measured, measured - 0.06, measured + 0.06, 100, digits=2) == verdict


def test_published_number_gets_measured_value_interval_and_verdict():
    table = judge_numbers([ENTRY], MEASURED)
    assert table.loc[0, ["published", "measured", "low", "high", "verdict"]].tolist() == [0.9, 0.8, 0.7, 0.92, "partly"]


def test_reason_makes_a_number_incomparable_whatever_its_value():
    table = judge_numbers([{**ENTRY, "value": 0.8, "sd": 0.01, "not_comparable": "other data"}], MEASURED)
    assert table.loc[0, ["verdict", "why"]].tolist() == ["not comparable", "other data"]
    assert table.loc[0, "published_sd"] == 0.01
    both = judge_numbers([{**ENTRY, "not_comparable": "another network", "why": "misprinted"}], MEASURED, "other cells")
    assert both.loc[0, ["verdict", "why"]].tolist() == ["not comparable", "other cells; another network; misprinted"]
    assert pd.isna(table.loc[0, "published_se"])


def test_settings_that_were_not_run_are_left_out():
    assert judge_numbers([{**ENTRY, "setting": "other"}], MEASURED).empty


def test_claims_need_a_predicate_and_carry_its_evidence():
    entry = {"id": "c", "source": "ours", "sentence": "It rises."}
    parts = (("wells", "reproduced", "x"), ("cells", "not reproduced", "y"))
    predicates = {"c": lambda numbers: Verdict("partly", f"{len(numbers)} rows", parts)}
    found, evidence = judge_claims([entry], predicates, MEASURED)
    assert found.loc[0, ["verdict", "evidence"]].tolist() == ["partly", "1 rows"]
    assert evidence.to_numpy().tolist() == [["c", *part] for part in parts]
    with pytest.raises(CellbookError, match="no predicate for the claims c"):
        judge_claims([entry], {}, MEASURED)


def test_unknown_verdict_is_refused():
    with pytest.raises(CellbookError, match="'maybe' is not one of"):
        Verdict("maybe", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": None}, "entry a of numbers lacks value"),
        ({"extra": 1}, "entry a of numbers has unknown fields extra"),
        ({"value": "92 %"}, "entry a of numbers has the value 92 %, which is no finite number"),
        ({"value": float("nan")}, "no finite number"),
        ({"digits": -1}, "digits -1, which is no whole number"),
        ({"k": True}, "k True, which is no whole number"),
        ({"id": 7}, "entry 7 of numbers has id 7, which is no text"),
        ({"where": " "}, "where  , which is no text"),
        ({}, ""),
    ],
)
def test_claims_file_is_checked(tmp_path, change, words):
    entry = {name: value for name, value in {**ENTRY, **change}.items() if value is not None}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"screen": "s", "numbers": [entry], "claims": []}))
    if words:
        with pytest.raises(CellbookError, match=words):
            load(path)
    else:
        assert load(path)["numbers"] == [ENTRY]


def test_an_id_occurs_once_in_a_claims_file(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"screen": "s", "numbers": [ENTRY, ENTRY | {"k": 2}]}))
    with pytest.raises(CellbookError, match="entry a of numbers has an id that occurs twice"):
        load(path)


def test_nothing_is_reproduced_where_nothing_was_scored():
    assert judge_number(0.9, float("nan"), float("nan"), float("nan"), 0) == claims.NOT


def test_claims_file_cannot_build_objects(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text("numbers: !!python/object/apply:os.getcwd []")
    with pytest.raises(CellbookError, match="cannot read the claims"):
        load(path)
