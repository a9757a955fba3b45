"""One volume to numbers and many to a summary: every empty case, both modes, bad input."""

import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from medpy.metric import binary as medpy

from anatolab.metrics import evaluate_volume, summarize
from anatolab.types import InputError

CLASSES = ("background", "RV", "Myo", "LV")
DISTANCES = ("hd95", "assd", "asd")


def volume(*boxes):
    """An (6, 16, 16) label volume with class k + 1 in the k-th box ((y0, y1), (x0, x1)); None leaves the class out."""
    labels = np.zeros((6, 16, 16), np.uint8)
    for k, limits in enumerate(boxes, start=1):
        if limits is not None:
            (y0, y1), (x0, x1) = limits
            labels[1:5, y0:y1, x0:x1] = k
    return labels


A, B, C = ((1, 6), (1, 6)), ((7, 12), (1, 6)), ((7, 12), (8, 14))


@pytest.mark.parametrize("spacing", [None, (10.0, 1.5, 1.5)])
@pytest.mark.parametrize("mode", ["strict", "official"])
def test_equal_to_medpy_where_both_sides_have_the_organ(spacing, mode):
    ref, pred = volume(A, B, C), volume(((2, 7), (1, 6)), ((7, 12), (1, 7)), C)
    values = evaluate_volume(pred, ref, CLASSES, spacing, mode=mode)
    assert list(values) == ["RV", "Myo", "LV"]
    for k, name in enumerate(values, start=1):
        p, r = pred == k, ref == k
        row = values[name]
        assert row["dice"] == pytest.approx(medpy.dc(p, r))
        assert row["jaccard"] == pytest.approx(medpy.jc(p, r))
        assert row["hd95"] == pytest.approx(medpy.hd95(p, r, spacing), abs=1e-6)
        assert row["assd"] == pytest.approx(medpy.assd(p, r, spacing), abs=1e-6)
        assert row["asd"] == pytest.approx(medpy.asd(p, r, spacing), abs=1e-6)
        assert row["missed"] == row["invented"] == row["absent"] == 0
        assert all(type(v) is float for v in row.values())


NAN = float("nan")


@pytest.mark.parametrize(
    ("mode", "case", "overlap", "nsd", "distance"),
    [
        ("strict", "missed", 0.0, 0.0, NAN),
        ("strict", "invented", 0.0, 0.0, NAN),
        ("strict", "absent", NAN, NAN, NAN),
        ("official", "missed", 0.0, 0.0, 0.0),
        ("official", "invented", 1.0, 0.0, 0.0),
        ("official", "absent", 0.0, NAN, 0.0),
    ],
)
def test_empty_rule(mode, case, overlap, nsd, distance):
    ref = volume(A, B, C if case == "missed" else None)
    pred = volume(A, B, C if case == "invented" else None)
    values = evaluate_volume(pred, ref, CLASSES, None, mode=mode)
    row = values["LV"]
    np.testing.assert_equal([row["dice"], row["jaccard"]], [overlap, overlap])
    np.testing.assert_equal([row["nsd"], row["nsd_1"], row["boundary_iou"]], [nsd] * 3)
    np.testing.assert_equal([row[d] for d in DISTANCES], [distance] * 3)
    assert {f: row[f] for f in ("missed", "invented", "absent")} == {
        f: float(f == case) for f in ("missed", "invented", "absent")
    }
    assert values["RV"]["dice"] == 1
    assert values["RV"]["hd95"] == 0


def test_definition_and_tolerance_are_passed_on():
    ref, pred = volume(A), volume(A)
    pred[1, 12, 1:6] = 1
    rows = [evaluate_volume(pred, ref, CLASSES, None, hd95=d)["RV"]["hd95"] for d in ("pooled", "max")]
    assert rows[0] < rows[1]
    loose, tight = (evaluate_volume(pred, ref, CLASSES, None, tolerance=t)["RV"]["nsd"] for t in (20.0, 0.0))
    assert loose == 1 > tight


@pytest.mark.parametrize(("spacing", "within"), [(None, True), ((10.0, 1.0, 1.0), True), ((10.0, 1.5, 1.5), False)])
def test_nsd_at_one_is_in_mm_or_voxels(spacing, within):
    """A box that is one pixel longer: its surface is within 1 mm of the other's where a pixel is 1 mm."""
    row = evaluate_volume(volume(((1, 7), (1, 6))), volume(A), CLASSES, spacing, tolerance=3.0)["RV"]
    assert row["nsd"] == 1
    assert (row["nsd_1"] == 1) == within
    assert row["nsd_1"] > 0.5


def test_rims_are_those_of_slices():
    """Rectangles of 5 x 5 and 6 x 5: without their cores of 1 and 2 pixels they share 23 of 29, in every slice."""
    pred, ref = volume(((1, 7), (1, 6))), volume(A)
    for volumes in ((pred, ref), (pred[1:2], ref[1:2]), (pred[1], ref[1])):
        assert evaluate_volume(*volumes, CLASSES, None)["RV"]["boundary_iou"] == pytest.approx(23 / 29)


def test_unknown_reference_is_left_out_on_both_sides():
    """What lies under 255 cannot change a number: the values are those of two volumes that are background there."""
    ref, pred = volume(A, B, C), volume(((2, 7), (1, 6)), B, C)
    ref[:, 10:, :] = 255
    other = pred.copy()
    other[:, 10:, :] = 3
    cut = [np.where(ref == 255, 0, labels) for labels in (pred, ref)]
    expected = evaluate_volume(*cut, CLASSES, (10.0, 1.5, 1.5))
    assert evaluate_volume(pred, ref, CLASSES, (10.0, 1.5, 1.5)) == expected
    assert evaluate_volume(other, ref, CLASSES, (10.0, 1.5, 1.5)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": np.zeros((6, 16, 15), int)}, "patient001_ED: the prediction has shape"),
        ({"pred": volume(A) + 5}, "patient001_ED: the prediction holds label"),
        ({"ref": volume(A) + np.uint8(200)}, "patient001_ED: the reference holds label"),
        ({"pred": volume(A) / 2}, "argmax"),
        ({"spacing": (1.5, 1.5)}, "one positive number per axis"),
        ({"mode": "lenient"}, "'strict' or 'official'"),
        ({"hd95": "mean"}, "'pooled'"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"pred": volume(A), "ref": volume(A), "classes": CLASSES, "spacing": None} | change
    with pytest.raises(InputError, match=message):
        evaluate_volume(**given, case="patient001_ED")


def row(dice, hd95=1.0, **flags):
    return {"dice": dice, "hd95": hd95, "missed": 0.0, "invented": 0.0, "absent": 0.0} | flags


PER_CASE = {
    "a_ED": {"RV": row(0.6, 4.0), "LV": row(0.9)},
    "a_ES": {"RV": row(0.0, NAN, missed=1.0), "LV": row(0.7, 3.0)},
    "b_ED": {"RV": row(0.0, NAN, invented=1.0), "LV": row(0.5, 5.0)},
    "c_ED": {"RV": row(NAN, NAN, absent=1.0), "LV": row(0.8, 2.0)},
}
PATIENT = {"a_ED": "a", "a_ES": "a", "b_ED": "b", "c_ED": "c"}


def test_summary_by_hand():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a mean of nothing must not warn
        summary = summarize(PER_CASE, PATIENT)
    assert summary["dice"] == pytest.approx({"RV": 0.2, "LV": 0.725, "mean": 0.4625})
    assert summary["hd95"] == pytest.approx({"RV": 4.0, "LV": 2.75, "mean": 3.375})
    # patients: a RV 0.3, LV 0.8; b RV 0, LV 0.5; c RV absent, LV 0.8
    assert summary["patients"]["dice"] == pytest.approx({"RV": 0.15, "LV": 0.7, "mean": 0.425})
    assert summary["per_patient"]["dice"] == pytest.approx({"a": 0.55, "b": 0.25, "c": 0.8})
    # a missed and b invented an organ, so their distances are no fair number; c has only an absent one
    np.testing.assert_equal(summary["per_patient"]["hd95"], {"a": NAN, "b": NAN, "c": 2.0})
    counts = summary["counts"]
    assert (counts["volumes"], counts["patients"]) == (4, 3)
    for flag in ("missed", "invented", "absent"):
        assert counts[flag] == {"RV": 1, "LV": 0, "total": 1}
    assert counts["nan"] == {"dice": {"RV": 1, "LV": 0, "total": 1}, "hd95": {"RV": 3, "LV": 0, "total": 3}}


def test_a_class_nobody_has_is_nan_and_out_of_the_mean_over_classes():
    cases = {"a": {"RV": row(NAN, NAN, absent=1.0), "LV": row(0.8)}}
    summary = summarize(cases, {"a": "a"})
    assert np.isnan(summary["dice"]["RV"])
    assert summary["dice"]["mean"] == 0.8


def test_summary_of_evaluated_volumes():
    ref = volume(A, B, C)
    cases = {n: evaluate_volume(p, ref, CLASSES, None) for n, p in {"x": ref, "y": volume(A, B, None)}.items()}
    summary = summarize(cases, {"x": "x", "y": "y"})
    assert summary["dice"] == {"RV": 1.0, "Myo": 1.0, "LV": 0.5, "mean": pytest.approx(2.5 / 3)}
    assert summary["hd95"]["LV"] == 0
    assert summary["counts"]["missed"]["LV"] == summary["counts"]["nan"]["hd95"]["LV"] == 1


@pytest.mark.parametrize(
    ("cases", "patients", "message"),
    [
        ({}, {}, "per_case is empty"),
        (PER_CASE, {"a_ED": "a"}, "a_ES: patient_of"),
        (PER_CASE | {"d": {"RV": row(0.1)}}, PATIENT | {"d": "d"}, "d: classes or metrics differ"),
        ({"a": {"RV": row(0.1)}, "b": {"RV": {"dice": 0.1}}}, {"a": "a", "b": "b"}, "b: classes or metrics differ"),
        ({"a": {"mean": row(0.1)}}, {"a": "a"}, "rename"),
    ],
)
def test_bad_tables_are_named(cases, patients, message):
    with pytest.raises(InputError, match=message):
        summarize(cases, patients)


@pytest.mark.real
def test_equal_to_medpy_on_real_hearts():
    """Annotations of ACDC against themselves moved in-plane: same numbers as medpy, organ by organ."""
    files = sorted((Path(os.environ["ANATOLAB_DATA"]) / "ACDC" / "data").glob("*.h5"))[:3]
    assert files
    for file in files:
        with h5py.File(file) as handle:
            ref = handle["label"][:]
        pred = np.roll(ref, (3, -2), (1, 2))
        for k, (name, row) in enumerate(evaluate_volume(pred, ref, CLASSES, (10.0, 1.5, 1.5)).items(), start=1):
            p, r = pred == k, ref == k
            assert row["dice"] == pytest.approx(medpy.dc(p, r), abs=1e-12), name
            assert row["hd95"] == pytest.approx(medpy.hd95(p, r, (10.0, 1.5, 1.5)), abs=1e-6), name
            assert row["assd"] == pytest.approx(medpy.assd(p, r, (10.0, 1.5, 1.5)), abs=1e-6), name


@pytest.mark.parametrize("names", [("kidney", "kidney"), ("kidney", " Kidney"), ("mean", "kidney"), ("kidney", "")])
def test_classes_that_a_table_could_not_tell_apart_are_refused(names: tuple[str, str]) -> None:
    ref = np.zeros((4, 8, 8), int)
    ref[:, :3, :3], ref[:, 5:, 5:] = 1, 2
    with pytest.raises(InputError, match=r"class [12]"):
        evaluate_volume(ref, ref, ("background", *names), None)
