import json
import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from anatolab import records
from anatolab.records import Record, RecordError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    return tmp_path


def test_written_and_read_back(root: Path) -> None:
    record = Record("toy", 3, {"dice": {"mean": 0.5}}, title="a title", provenance={"commit": "0123456789"})
    path = records.write(record)
    assert path == root / "toy" / "seed3.json"
    assert records.read(path) == record
    assert record.run_id == "toy/seed3@0123456"
    assert [p.name for p in path.parent.iterdir()] == ["seed3.json"]


def test_values_are_means_over_seeds_and_a_gap_is_not_left_out() -> None:
    for seed, dice in enumerate((0.5, 0.7, 0.9)):
        records.write(Record("toy", seed, {"dice": {"mean": dice}, "gap": None if seed else 1.0, "who": "LV"}))
    assert records.value("toy", "dice.mean") == pytest.approx(0.7)
    assert math.isnan(records.value("toy", "gap"))
    assert records.value("toy", "who") == "LV"
    assert [r.seed for r in records.load("toy")] == [0, 1, 2]


def test_seconds_of_two_processors_have_no_mean() -> None:
    for seed, device in enumerate(("old", "old", "new")):
        provenance = {"device": device}
        records.write(
            Record("toy", seed, {"cpu_s": 10.0 + seed, "curve": {"cpu_s": [1.0]}, "dice": 0.5}, provenance=provenance)
        )
    assert records.value("toy", "dice") == 0.5
    assert records.mean(records.load("toy")[:2], "cpu_s") == 10.5
    for key in ("cpu_s", "curve.cpu_s.0"):
        with pytest.raises(RecordError, match=f"{key} of toy: its runs were on several processors"):
            records.value("toy", key)


def test_lists_are_reached_by_position() -> None:
    record = Record("toy", 0, {"curve": [{"loss": 2.0}, {"loss": 1.0}]})
    assert records.get(record, "curve.1.loss") == 1.0


def test_a_missing_record_and_a_missing_value_are_named() -> None:
    with pytest.raises(RecordError, match="no record of 'nothing'"):
        records.load("nothing")
    records.write(Record("toy", 0, {"dice": {"mean": 1.0}}))
    for key in ("dice.LV", "dice.mean.x", "hd95", "dice.0"):
        with pytest.raises(RecordError, match=rf"record 'toy' \(seed 0\) has no value '{key}'"):
            records.value("toy", key)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', "[" * 100_000, '{"schema": 1}'])
def test_what_is_no_record_is_named(root: Path, text: str) -> None:
    (root / "toy").mkdir()
    (root / "toy" / "seed0.json").write_text(text)
    with pytest.raises(RecordError, match=r"seed0.json: .*make records"):
        records.load("toy")


def changed(path: Path, **changes: object) -> None:
    held = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")


CHANGES = [
    {"values": {"dice": 0.9}},
    {"provenance": {"commit": "0" * 40}},
    {"values": [1]},
    {"seal": "0" * 64},
    {"note": "x"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes)))
def test_a_record_that_was_changed_by_hand_is_refused(changes: dict[str, object]) -> None:
    path = records.write(Record("toy", 0, {"dice": 0.5, "nd95": None, "ä": [1e-300, 3]}))
    changed(path)  # another layout of the same values is the same record
    assert records.read(path).values["dice"] == 0.5
    changed(path, **changes)
    with pytest.raises(RecordError, match=r"seed0\.json: was changed after it was written; restore it"):
        records.load("toy")


def test_no_flipped_bit_gives_another_record() -> None:
    path = records.write(Record("toy", 0, {"dice": 0.5}))
    raw, whole = path.read_bytes(), records.read(path)
    for place in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        with suppress(RecordError):
            assert records.read(path) == whole, place  # a flip in white space


def test_a_copy_is_not_the_record_of_another_run(root: Path) -> None:
    path = records.write(Record("toy", 0, {"dice": 0.5}))
    for copy in (root / "toy" / "seed1.json", root / "other" / "seed0.json"):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        with pytest.raises(RecordError, match=r"is the record of 'toy' with seed 0; move it back, or delete it\."):
            records.read(copy)


def test_a_record_from_before_there_were_seals_is_read() -> None:
    path = records.write(Record("toy", 0, {"dice": 0.5}))
    held = json.loads(path.read_text())
    del held["seal"]
    path.write_text(json.dumps(held))
    assert records.read(path) == Record("toy", 0, {"dice": 0.5})


def test_arrays_tuples_paths_and_non_finite_numbers_become_json() -> None:
    value = {"a": np.float32(0.5), "b": (1, np.arange(2)), "c": Path("x"), "d": [math.nan, math.inf], 4: True}
    assert records.plain(value) == {"a": 0.5, "b": [1, [0, 1]], "c": "x", "d": [None, None], "4": True}
    json.dumps(records.plain(value), allow_nan=False)


def test_provenance_names_commit_machine_versions_time_and_memory() -> None:
    found = records.provenance(started="2026-01-01T00:00:00+00:00", wall_s=1.23, device="CPU", threads=1)
    assert found["wall_s"] == 1.2
    assert found["versions"]["numpy"] == np.__version__
    assert 10 < found["peak_memory_mb"] < 100_000
    assert len(found["commit"]) == 40 or found["commit"] == "unknown"


def test_a_record_names_the_code_that_ran_and_says_when_it_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(before: dict[str, object] | None, now: dict[str, object]) -> dict[str, object]:
        monkeypatch.setattr(records, "git_state", lambda: now)
        values = records.provenance(started="", wall_s=1, device="CPU", threads=1, before=before)
        return {k: values[k] for k in ("commit", "dirty")}

    clean, other, edited = ({"commit": c, "dirty": d} for c, d in (("a", False), ("b", False), ("a", True)))
    assert made(clean, clean) == clean
    assert made(clean, other) == made(clean, edited) == edited
    assert made(edited, clean) == edited
    assert made(None, other) == other


ASKED = """
import json
from anatolab import records
print(json.dumps([str(records.root()), records.value("toy", "dice"), records.git_state()]))
"""


@pytest.mark.parametrize("built", [None, {"commit": "0123456789", "dirty": False}])
def test_a_package_without_a_checkout_reads_its_own_records_and_knows_its_own_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: dict[str, object] | None
) -> None:
    records.write(Record("toy", 0, {"dice": 0.5}))
    site = tmp_path / "someone" / "site-packages"
    for name in ("__init__", "records", "files", "errors", "staleness"):
        (site / "anatolab").mkdir(parents=True, exist_ok=True)
        (site / "anatolab" / f"{name}.py").write_text((records.PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    (site / "anatolab" / "book_records").mkdir()
    (tmp_path / "toy").rename(site / "anatolab" / "book_records" / "toy")
    if built:
        (site / "anatolab" / "commit.json").write_text(json.dumps(built))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], cwd=site.parent, check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "theirs"], cwd=site.parent, check=True)
    monkeypatch.delenv("ANATOLAB_RECORDS")
    monkeypatch.setenv("PYTHONPATH", str(site))
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
    )
    root, dice, state = json.loads(done.stdout)
    assert (root, dice) == (str(site / "anatolab" / "book_records"), 0.5)
    assert state == (built or {"commit": "unknown", "dirty": True})
