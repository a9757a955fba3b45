import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anatolab import experiments, records
from anatolab.experiments import EXPERIMENTS
from anatolab.methods import METHODS
from anatolab.nn import multiple_of
from anatolab.presets import SIZES, SIZES_3D

BOOK = Path(__file__).resolve().parents[1] / "book" / "records"


def test_ids_are_unique_and_methods_and_sizes_exist() -> None:
    assert len({e.id for e in EXPERIMENTS}) == len(EXPERIMENTS)
    for e in EXPERIMENTS:
        assert e.method in METHODS
        assert e.size in SIZES
        assert len(set(e.seeds)) == len(e.seeds) > 0
        experiments.method_config(e)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_carries_title_color_and_settings_for_every_size(name: str) -> None:
    method = METHODS[name]
    assert method.title
    assert re.fullmatch("#[0-9a-f]{6}", method.color)
    for size in (*SIZES.values(), *SIZES_3D.values()):
        config = method.Config().for_size(size)
        assert isinstance(config, method.Config)
        assert (config.updates, config.labeled) == (size.updates, size.labeled)
    assert len({m.title for m in METHODS.values()}) == len({m.color for m in METHODS.values()}) == len(METHODS)


def test_heads_are_as_wide_as_a_size_affords_and_as_published_at_full() -> None:
    for name in ("action", "actionpp", "mona", "arco"):
        kind = METHODS[name].Config()
        full, demo, tiny = (kind.for_size(SIZES[size]) for size in ("full", "demo", "tiny"))
        assert full == replace(kind, updates=full.updates, labeled=full.labeled, unlabeled=full.unlabeled)
        assert (demo.representation, demo.pretraining.embedding) == (64, 128)
        assert (tiny.representation, tiny.num_anchors, tiny.num_negatives, tiny.pretraining.embedding) == (
            32,
            128,
            256,
            64,
        )
        assert (demo.pretraining.cells, kind.for_size(SIZES_3D["demo"]).pretraining.cells) == (8, 4)
    bank = [METHODS["arco"].Config().for_size(SIZES[size]).bank for size in ("full", "demo", "tiny")]
    assert bank == [30_000, 2_048, 512]
    assert METHODS["mona"].Config().for_size(SIZES_3D["demo"]).neighbor_cells == 4


def test_every_method_of_a_table_has_the_same_budget() -> None:
    for e in EXPERIMENTS:
        config = experiments.method_config(e)
        size = e.budget
        share = getattr(config, "pretraining", None)
        assert round(config.updates * (1 - (share.shares[0] if share else 0))) == size.updates
        assert config.labeled == e.overrides.get("labeled", size.labeled)  # more where no image is unlabeled
        assert config.unlabeled == size.unlabeled
        if e.profile == "recommended" and "augmentation" not in e.overrides:
            assert config.augmentation == METHODS["supervised"].Config().augmentation


def test_the_budget_of_demo_is_the_fixed_one() -> None:
    demo = SIZES["demo"]
    assert (demo.side, demo.updates, demo.labeled, demo.unlabeled, demo.network) == (96, 5000, 4, 4, "stem_unet")


def test_volumes_have_patches_that_their_networks_can_halve() -> None:
    assert SIZES_3D.keys() == SIZES.keys()
    assert (SIZES["full"].image, SIZES_3D["full"].image) == ((256, 256), (80, 112, 112))  # the papers'
    for size in SIZES_3D.values():
        assert all(side % multiple_of(size.network, 3) == 0 for side in size.image)
    assert all(e.dims == 3 for e in EXPERIMENTS if e.cohort == "la")


def test_every_committed_record_is_of_the_configuration_that_is_wanted_today() -> None:
    compared = 0
    for e in EXPERIMENTS:
        for path in (BOOK / e.id).glob("seed*.json"):
            assert records.read(path).config == experiments.config_of(e), path
            compared += 1
    assert compared >= 1


def test_a_run_on_volumes_says_the_depth_of_its_patches_and_one_on_slices_does_not() -> None:
    volumes = experiments.config_of(experiments.by_id("la-8-base"))
    slices = experiments.config_of(experiments.by_id("acdc96-3-mean-teacher"))
    assert (volumes["size"]["depth"], volumes["size"]["updates"]) == (48, 2000)
    assert (volumes["fields"]["labeled"], volumes["fields"]["unlabeled"]) == (2, 2)
    assert "depth" not in slices["size"]


def test_an_unknown_run_is_named() -> None:
    with pytest.raises(records.RecordError, match="'nothing' is not a wanted run"):
        experiments.by_id("nothing")


def test_a_run_names_its_own_network_and_one_that_does_not_has_the_sizes() -> None:
    from anatolab.nn import NETWORKS

    assert experiments.by_id("acdc96-all-morse-basic-unet").budget.network == "basic_unet"
    assert experiments.by_id("acdc96-all-morse").budget == SIZES["demo"]
    assert experiments.by_id("acdc128-3-base").budget == replace(SIZES["demo"], side=128, updates=6_000)
    for e in EXPERIMENTS:
        assert e.budget.network in NETWORKS
        assert all(side % multiple_of(e.budget.network, e.dims) == 0 for side in e.budget.image)


def test_rendered_points_keep_the_share_of_the_image_that_is_published() -> None:
    flat = experiments.method_config(experiments.by_id("acdc96-all-morse"))
    deep = METHODS["morse"].Config().for_size(SIZES_3D["demo"])
    assert (flat.points, flat.render_points) == (288, 1152)
    assert flat.render_points / 96**2 == 8192 / 256**2
    assert deep.render_points / (48 * 64 * 64) == pytest.approx(8192 / 96**3, rel=1e-3)
    config = METHODS["morse"].Config()
    assert config.for_size(SIZES["full"]).render_points == 8192
    assert (flat.experts, flat.gate_stride, flat.head_width) == (32, 4, 64)


def test_rows_of_components_differ_in_what_they_say() -> None:
    fields = [tuple(sorted(f.items())) for _, _, f in experiments.COMPONENTS]
    assert len(set(fields)) == len(fields)
    switched = {
        (experiments.by_id(f"acdc96-all-morse-{part}").overrides.get("fusion")) for part, _, _ in experiments.COMPONENTS
    }
    assert switched == {"concat", "dense", None}


OWN_TERMS = {"action": ["anco"], "actionpp": ["anco", "aaco_class"], "mona": ["contrast"], "arco-sg": ["contrast"]}
MADE = [(row, r) for row in OWN_TERMS if records.exists(f"acdc96-3-{row}") for r in records.load(f"acdc96-3-{row}")]


@pytest.mark.parametrize(("row", "record"), MADE, ids=[r.run_id for _, r in MADE])
def test_the_contrast_of_a_recorded_training_was_learned(row: str, record: records.Record) -> None:
    """Over the second half of the training each term lies a tenth below its start."""
    curve = records.get(record, "curve")
    for term in OWN_TERMS[row]:
        values = [line[term] for line in curve if term in line]
        assert np.mean(values[len(values) // 2 :]) <= 0.9 * values[0], term
