from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anatolab import experiments, records
from anatolab.experiments import EXPERIMENTS, SIZES, SIZES_3D, Experiment, Size
from anatolab.methods import METHODS
from anatolab.nn import multiple_of
from anatolab.types import InputError

BOOK = Path(__file__).resolve().parents[1] / "book" / "records"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path / "records"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "records"


def test_ids_are_unique_and_methods_cohorts_and_sizes_exist() -> None:
    assert len({e.id for e in EXPERIMENTS}) == len(EXPERIMENTS)
    for e in EXPERIMENTS:
        assert e.method in METHODS
        assert e.cohort in experiments.COHORTS
        assert e.size in SIZES
        assert len(set(e.seeds)) == len(e.seeds) > 0
        experiments.method_config(e)


def test_every_method_of_a_table_has_the_same_budget() -> None:
    for e in EXPERIMENTS:
        config = experiments.method_config(e)
        size = e.budget
        assert config.updates == size.updates
        assert config.labeled == size.labeled
        assert getattr(config, "unlabeled", size.unlabeled) == size.unlabeled
        assert config.augment == METHODS["supervised"].Config().augment


def test_the_budget_of_demo_is_the_fixed_one() -> None:
    demo = SIZES["demo"]
    assert (demo.side, demo.updates, demo.labeled, demo.unlabeled, demo.network) == (128, 2000, 4, 4, "light_unet")


def test_volumes_have_patches_that_their_networks_can_halve() -> None:
    assert SIZES_3D.keys() == SIZES.keys()
    assert (SIZES["full"].image, SIZES_3D["full"].image) == ((256, 256), (80, 112, 112))  # the papers'
    for size in SIZES_3D.values():
        assert all(side % multiple_of(size.network, 3) == 0 for side in size.image)
    assert all(e.dims == 3 for e in EXPERIMENTS if e.cohort == "atrium")


def test_every_committed_record_is_of_the_configuration_that_is_wanted_today() -> None:
    compared = 0
    for e in EXPERIMENTS:
        for path in (BOOK / e.id).glob("seed*.json"):
            assert records.read(path).config == experiments.config_of(e), path
            compared += 1
    assert compared >= 6


def test_a_run_on_volumes_says_the_depth_of_its_patches_and_one_on_slices_does_not() -> None:
    volumes = experiments.config_of(experiments.by_id("atrium-3-mean-teacher"))
    slices = experiments.config_of(experiments.by_id("acdc-3-mean-teacher"))
    assert (volumes["size"]["depth"], volumes["size"]["updates"]) == (48, 1000)
    assert (volumes["fields"]["labeled"], volumes["fields"]["unlabeled"]) == (2, 2)
    assert "depth" not in slices["size"]


def test_a_run_on_volumes_becomes_a_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anatolab.data import split_patients
    from anatolab.data.phantoms import atrium_cohort

    cohort = atrium_cohort(4, seed=0, size=32)
    split = split_patients(cohort, 1, validation=1, seed=0)
    monkeypatch.setitem(experiments.COHORTS, "atrium", lambda: (cohort, lambda labeled: split))
    small = Size("tiny", 16, 2, 1, 1, "light_unet", 4, depth=8)
    monkeypatch.setitem(SIZES_3D, "tiny", small)
    record = experiments.run(replace(experiments.by_id("atrium-3-mean-teacher"), size="tiny"), 0, progress=False)
    assert record.config["size"]["depth"] == 8
    assert record.values["dice"].keys() == {"LA", "mean"}
    assert records.path_of("atrium-3-mean-teacher", 0).exists()


TINY = Experiment("toy-2-supervised", "supervised", "toy", 2, "toy", (0, 1), size="tiny", overrides={"augment": None})


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A wanted run of seconds: generated hearts, three updates."""
    from anatolab.data import split_patients
    from anatolab.data.phantoms import cardiac_cohort

    def cohort():
        found = cardiac_cohort(6, seed=0, size=96)
        return found, lambda labeled: split_patients(found, labeled, validation=2, seed=0)

    monkeypatch.setitem(experiments.COHORTS, "toy", cohort)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], side=32, updates=3))
    wanted = replace(TINY, overrides={})
    monkeypatch.setattr(experiments, "EXPERIMENTS", (wanted,))
    return wanted


def test_a_run_becomes_a_record_that_stands_until_code_or_configuration_change(
    tiny: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not experiments.stands(tiny, 0)
    assert experiments.make_records() == ["toy-2-supervised/seed0", "toy-2-supervised/seed1"]
    assert experiments.make_records() == []
    record = records.load("toy-2-supervised")[0]
    assert len(record.values["cases"]) == 4
    assert record.values["dice"]["mean"] == pytest.approx(
        np.mean([record.values["dice"][c] for c in ("RV", "Myo", "LV")]), abs=1e-4
    )
    assert record.split_sha256
    assert record.provenance["data"].endswith("official")
    assert record.config["fields"]["updates"] == 3
    assert not Path("runs/records/toy-2-supervised").exists() or not any(Path("runs/records").rglob("*.pt"))
    assert experiments.stands(tiny, 0)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], updates=4))
    assert not experiments.stands(tiny, 0)
    assert experiments.make_records(limit=-1) == []


def test_the_same_seed_gives_the_same_numbers(tiny: Experiment) -> None:
    one, two = (experiments.run(tiny, 0).values for _ in range(2))
    del one["train_s"], two["train_s"]
    assert records.plain(one) == records.plain(two)


def test_an_unknown_run_is_named() -> None:
    with pytest.raises(records.RecordError, match="'nothing' is no wanted run"):
        experiments.by_id("nothing")


def test_acdc_needs_its_folder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_DATA", raising=False)
    with pytest.raises(InputError, match="ANATOLAB_DATA is not set"):
        experiments.COHORTS["acdc"]()


def test_list_says_what_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert experiments.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(e.id in printed for e in EXPERIMENTS)
    assert "not run" in printed


def test_gpu_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert experiments.main(["gpu"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_gpu_dry_run_stops_at_its_limit_and_writes_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu"
    assert experiments.main(["gpu", "--dry-run", "--limit", "0", "--out", str(out)]) == 0
    assert "time is up before" in capsys.readouterr().out
    assert (out / "records.tar.gz").stat().st_size <= 16 << 20


@pytest.mark.real
def test_packed_acdc_is_small_and_gives_the_same_training_rows(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anatolab.data import open_cohort, prepare

    monkeypatch.setenv("ANATOLAB_DATA", str(real_data))
    cohort = open_cohort(real_data / "ACDC")
    few = {"train": cohort.published["train"][:2], "validation": cohort.published["validation"][:1]}
    small = replace(cohort, published={**cohort.published, **few})
    monkeypatch.setattr(experiments, "_acdc", lambda: (small, None))
    packed = open_cohort(experiments.pack_data(tmp_path / "pack"))
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


def test_a_run_names_its_own_network_and_one_that_does_not_has_the_sizes() -> None:
    from anatolab.nn import NETWORKS

    assert experiments.by_id("acdc-all-morse-basic-unet").budget.network == "basic_unet"
    assert experiments.by_id("acdc-all-morse").budget == SIZES["demo"]
    assert experiments.by_id("atrium-all-morse-segresnet").budget == replace(SIZES_3D["demo"], network="segresnet")
    for e in EXPERIMENTS:
        assert e.budget.network in NETWORKS
        assert all(side % multiple_of(e.budget.network, e.dims) == 0 for side in e.budget.image)


def test_rendered_points_keep_the_share_of_the_image_that_is_published() -> None:
    flat, deep = (experiments.method_config(experiments.by_id(f"{c}-all-morse")) for c in ("acdc", "atrium"))
    assert (flat.points, flat.render_points) == (512, 2048)
    assert flat.render_points / 128**2 == 8192 / 256**2
    assert deep.render_points / (48 * 64 * 64) == pytest.approx(8192 / 96**3, rel=1e-3)
    config = METHODS["morse"].Config
    assert experiments.sized(config(), SIZES["full"]).render_points == 8192
    assert (flat.experts, flat.gate_stride, flat.head_width) == (32, 4, 64)


def test_rows_of_components_differ_in_what_they_say(root: Path) -> None:
    fields = [tuple(sorted(f.items())) for _, _, f in experiments.COMPONENTS]
    assert len(set(fields)) == len(fields)
    switched = {
        (experiments.by_id(f"acdc-all-morse-{part}").overrides.get("fusion")) for part, _, _ in experiments.COMPONENTS
    }
    assert switched == {"concat", "dense", None}


def test_the_record_of_morse_holds_the_coarse_output_beside_the_refined_one(
    tiny: Experiment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everywhere_lv(method: object, image: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 0.0, 0.0, 1.0]).reshape(1, 4, 1, 1).expand(len(image), 4, *image.shape[2:])

    monkeypatch.setattr(METHODS["morse"], "predict_coarse", everywhere_lv)
    wanted = replace(tiny, id="toy-2-morse", method="morse", overrides={"ramp": "constant"})
    monkeypatch.setattr(experiments, "EXPERIMENTS", (tiny, wanted))
    values = experiments.run(wanted, 0, progress=False).values
    assert values["coarse"]["dice"].keys() == values["dice"].keys()
    assert values["coarse"]["per_patient"]["dice"].keys() == values["per_patient"]["dice"].keys()
    assert values["coarse"]["dice"]["LV"] > 0 == values["coarse"]["dice"]["RV"]
    assert values["coarse"]["dice"] != values["dice"]
    assert "coarse" not in experiments.run(tiny, 0, progress=False).values
