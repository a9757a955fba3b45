"""Making records: a run becomes one, one that stands is not made again, and what a lent GPU is asked for."""

import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anatolab import experiments, records
from anatolab.experiments import EXPERIMENTS, Experiment
from anatolab.methods import METHODS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.types import InputError, Size
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]


tool = script("studies/trainings.py")
lent = script("studies/lent.py")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path / "records"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "records"


def test_every_wanted_run_is_on_a_cohort_that_there_is() -> None:
    assert {e.cohort for e in EXPERIMENTS} <= set(tool.COHORTS)


def test_acdc_needs_its_folder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_DATA", raising=False)
    with pytest.raises(InputError, match="ANATOLAB_DATA is not set"):
        tool.COHORTS["acdc"]()


def test_a_run_on_volumes_becomes_a_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anatolab.data import split_patients
    from anatolab.data.phantoms import atrium_cohort

    cohort = atrium_cohort(4, seed=0, size=32)
    split = split_patients(cohort, 1, validation=1, seed=0)
    monkeypatch.setitem(tool.COHORTS, "la", lambda: (cohort, lambda labeled: split))
    small = Size("tiny", 16, 2, 1, 1, "light_unet", 4, depth=16)
    monkeypatch.setitem(SIZES_3D, "tiny", small)
    record = tool.run(replace(experiments.by_id("la-8-base"), size="tiny"), 0, progress=False)
    assert record.config["size"]["depth"] == 16
    assert record.values["dice"].keys() == {"LA", "mean"}
    assert records.path_of("la-8-base", 0).exists()


TINY = Experiment(
    "toy-2-supervised", "supervised", "toy", 2, "toy", (0, 1), size="tiny", overrides={"augmentation": None}
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A wanted run of seconds: generated hearts, three updates."""
    from anatolab.data import split_patients
    from anatolab.data.phantoms import cardiac_cohort

    def cohort():
        found = cardiac_cohort(6, seed=0, size=96)
        return found, lambda labeled: split_patients(found, labeled, validation=2, seed=0)

    monkeypatch.setitem(tool.COHORTS, "toy", cohort)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], side=32, updates=3))
    wanted = replace(TINY, overrides={})
    monkeypatch.setattr(experiments, "EXPERIMENTS", (wanted,))
    return wanted


def test_a_run_becomes_a_record_that_stands_until_code_or_configuration_change(
    tiny: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not experiments.stands(tiny, 0)
    assert tool.make_records() == ["toy-2-supervised/seed0", "toy-2-supervised/seed1"]
    assert tool.make_records() == []
    record = records.load("toy-2-supervised")[0]
    assert len(record.values["cases"]) == 4
    assert record.values["dice"]["mean"] == pytest.approx(
        np.mean([record.values["dice"][c] for c in ("RV", "Myo", "LV")]), abs=1e-4
    )
    beats = record.values["LV"]["beats"]
    assert record.values["LV"]["unit"] == "ml"
    assert beats.keys() == record.values["per_patient"]["dice"].keys()
    assert all(0 < b["esv"][1] < b["edv"][1] for b in beats.values())  # annotated hearts contract
    fractions = [b["ef"] for b in beats.values()]
    known = all(predicted is not None for predicted, _ in fractions)  # else a chamber was not found at all
    error = np.mean([abs(predicted - annotated) for predicted, annotated in fractions]) if known else None
    assert record.values["LV"]["ef_error"] == (pytest.approx(error, abs=1e-4) if known else None)
    assert record.split_sha256
    assert record.provenance["data"].endswith("official")
    assert record.config["fields"]["updates"] == 3
    assert not Path("runs/records/toy-2-supervised").exists() or not any(Path("runs/records").rglob("*.pt"))
    assert experiments.stands(tiny, 0)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], updates=4))
    assert not experiments.stands(tiny, 0)
    assert tool.make_records(limit=-1) == []


def test_the_same_seed_gives_the_same_numbers(tiny: Experiment) -> None:
    one, two = (tool.run(tiny, 0).values for _ in range(2))
    for values in (one, two):
        del values["train_s"], values["train_cpu_s"]
    assert records.plain(one) == records.plain(two)


def test_list_says_what_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(e.id in printed for e in EXPERIMENTS)
    assert "not run" in printed


def test_gpu_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tool.main(["gpu"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_gpu_dry_run_stops_at_its_limit_and_writes_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu"
    assert tool.main(["gpu", "--dry-run", "--limit", "0", "--out", str(out)]) == 0
    assert "time is up before" in capsys.readouterr().out
    assert [path.name for path in (out / "results").iterdir()] == ["results-1.tar.gz"]


def test_gpu_dry_run_calls_the_gpu_tests_and_every_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        assert 0 < how["timeout"] <= 60
        return subprocess.CompletedProcess(command, 1 if "bench_step" in command[1] else 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert tool.main(["gpu", "--dry-run", "--limit", "60", "--out", str(tmp_path)]) == 1  # one of them failed
    assert calls[0][1:] == ["-m", "pytest", "-q", "tests/gpu"]
    scripts = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("bench_*.py"))
    assert len(scripts) >= 6
    assert [command[1] for command in calls[1:]] == [str(path) for path in scripts]
    assert all(command[2:4] == ["--report", "--json"] for command in calls[1:])
    assert [Path(command[4]).parent for command in calls[1:]] == [tmp_path / "benchmarks"] * len(scripts)


def test_results_go_home_in_few_archives_of_at_most_16_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    assert (lent.PART, lent.PARTS) == (15 << 20, 8)
    monkeypatch.setattr(lent, "PART", 15 << 12)  # a MiB is 4 KiB here

    folders = [tmp_path / "benchmarks", tmp_path / "records"]
    generator, written = np.random.default_rng(0), {}
    for folder, count in zip(folders, (2, 5), strict=True):
        (folder / "run").mkdir(parents=True)
        for number in range(count):
            written[f"{folder.name}/run/{number}"] = generator.bytes(6 << 12)  # which no compression makes smaller
            (folder / "run" / str(number)).write_bytes(written[f"{folder.name}/run/{number}"])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results-9.tar.gz").touch()  # of an earlier call
    packed = lent.pack_results(tmp_path / "results", folders)
    assert len(packed) == len(list((tmp_path / "results").iterdir())) == 4 <= lent.PARTS
    assert all(path.stat().st_size <= 16 << 12 for path in packed)
    for path in packed:
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                file = archive.extractfile(member)
                assert file is not None
                assert file.read() == written.pop(member.name)
    assert not written


@pytest.mark.real
def test_packed_acdc_is_small_and_gives_the_same_training_rows(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anatolab.data import open_cohort, prepare

    monkeypatch.setenv("ANATOLAB_DATA", str(real_data))
    cohort = open_cohort(real_data / "ACDC")
    few = {"train": cohort.published["train"][:2], "validation": cohort.published["validation"][:1]}
    small = replace(cohort, published={**cohort.published, **few})
    monkeypatch.setitem(tool.COHORTS, "acdc", lambda: (small, None))
    packed = open_cohort(tool.pack_data(tmp_path / "pack"))
    assert packed.published == few
    one = prepare(small, few["train"], size=(128, 128))
    two = prepare(packed, few["train"], size=(128, 128))
    assert one.names == two.names
    assert np.array_equal(one.labels, two.labels)
    assert np.abs(one.images - two.images).max() < 0.02
    case, again = small.of(few["validation"])[0].load(), packed.of(few["validation"])[0].load()
    assert case.image.shape == again.image.shape
    assert np.array_equal(case.label, again.label)
    slices, volumes = ([f.stat().st_size for f in (tmp_path / "pack").rglob(p)] for p in ("*_slice_*", "*_frame0?.h5"))
    whole = 1312 * np.mean(slices) + 20 * np.mean(volumes)  # what all of ACDC comes to
    assert whole < 28e6  # most of it 128 x 128 slices; the validation volumes keep their native size


def test_the_record_of_morse_holds_the_coarse_output_beside_the_refined_one(
    tiny: Experiment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everywhere_lv(method: object, image: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 0.0, 0.0, 1.0]).reshape(1, 4, 1, 1).expand(len(image), 4, *image.shape[2:])

    monkeypatch.setattr(METHODS["morse"], "predict_coarse", everywhere_lv)
    wanted = replace(tiny, id="toy-2-morse", method="morse", overrides={"ramp": "constant"})
    monkeypatch.setattr(experiments, "EXPERIMENTS", (tiny, wanted))
    values = tool.run(wanted, 0, progress=False).values
    assert values["coarse"]["dice"].keys() == values["dice"].keys()
    assert values["coarse"]["per_patient"]["dice"].keys() == values["per_patient"]["dice"].keys()
    assert values["coarse"]["dice"]["LV"] > 0 == values["coarse"]["dice"]["RV"]
    assert values["coarse"]["dice"] != values["dice"]
    assert "coarse" not in tool.run(tiny, 0, progress=False).values


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ("model name\t: EPYC\ncpu family\t: 26\nmodel\t\t: 2\n\nmodel name\t: other\n", "EPYC, family 26 model 2"),
        ("model name\t: Xeon\n", "Xeon"),
        ("", platform.processor() or platform.machine()),
    ],
)
def test_the_processor_is_named_with_what_a_cloud_leaves_out(tmp_path: Path, info: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(info, encoding="utf-8")
    assert script("studies/recording.py").processor(tmp_path / "cpuinfo") == name
