"""Waterbirds, birds of CUB-200 pasted on land or water of Places: the class is the bird, the attribute the place.

::

    waterbird_complete95_forest2water2/metadata.csv      img_id,img_filename,y,split,place,place_filename
    waterbird_complete95_forest2water2/001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg

``y`` 1 is a waterbird, ``place`` 1 is water, ``split`` 0, 1, 2 is train, val, test. ``img_id`` counts from 1 and is no
row number. In training 95 % of the birds are on their usual background, in validation and test half of each class. The
masks of CUB (``segmentations/<the same path>.png``) fit pixel for pixel. Three landbird species have the wrong class,
as the authors of the release note; they are left as published.

Reference:
    Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020.
"""

from __future__ import annotations

from pathlib import Path

from anatolab.data.files import inside
from anatolab.data.labeled import LabeledImages, labeled_images, numbers, read_csv

CLASSES, ATTRIBUTES = ("landbird", "waterbird"), ("land", "water")
PROVENANCE = {"source": "Waterbirds, Sagawa et al., ICLR 2020", "license": "none stated; from CUB-200-2011 and Places"}
FOLDER = "waterbird_complete95_forest2water2"


def read_waterbirds(root: str | Path) -> LabeledImages:
    """Reads Waterbirds as released.

    Args:
        root: The folder with ``metadata.csv``, or the one that holds it.

    Raises:
        InputError: The table, a column or an image is missing, or a value is not allowed.
    """
    root = Path(root)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    path = root / "metadata.csv"
    rows = read_csv(path, "img_filename", "y", "split", "place")
    files = [inside(root, row["img_filename"], path) for row in rows]
    values = [numbers(path, row, "y", "place", "split") for row in rows]
    return labeled_images(path, "Waterbirds", CLASSES, ATTRIBUTES, files, values, PROVENANCE)
