"""Draws the real hearts that the data chapter shows beside generated ones; writes book/records/figures/acdc-slices.png.

    ANATOLAB_DATA=... python tools/pictures.py

The picture is an adaptation of ACDC and under its license: see LICENSE.md beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from anatolab import records
from anatolab.data import open_cohort
from anatolab.viz import overlay


def main() -> None:
    cohort = open_cohort(Path(os.environ["ANATOLAB_DATA"]) / "ACDC")
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, patient in zip(figure.subplots(1, 4), cohort.published["train"][:4], strict=True):
        case = cohort.of([patient])[0].load()
        assert case.label is not None
        z = int(np.median(np.flatnonzero((case.label == 1).any((1, 2)))))  # the middle of the right ventricle
        overlay(case.image[0, z], case.label[z], classes=cohort.classes, axes=axes)
        axes.set_title(f"{patient}, {case.phase}", fontsize=9)
    path = records.root() / "figures" / "acdc-slices.png"
    figure.savefig(path, dpi=76)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
