"""Claims about mathematics, which are computed while the book is built instead of trained.

Each function of :data:`EXACT` returns a difference without sampling error; a line of the ledger claims its sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from anatolab.metrics import Comparison
from anatolab.metrics.verdicts import exactly


def _worst(differences: Mapping[str, float]) -> Comparison:
    """A claim that something holds *always* stands or falls with its worst case, which has no sampling error."""
    return exactly(max(differences.values()), len(differences))


@cache
def _variance_ratios(kind: str) -> dict[str, float]:
    """Variance over that of naive draws, minus 1, of nine fields on one irregular mask."""
    import torch

    from anatolab.analysis.sampling_variance import exact_variance
    from anatolab.sampling import PixelSampler, bin_pixels

    draw = torch.Generator().manual_seed(0)
    side = torch.arange(32)
    y, x = torch.meshgrid(side, side, indexing="ij")
    in_cell = ((y % 8 - 3.5) ** 2 + (x % 8 - 3.5) ** 2).double()
    label = torch.where(torch.rand(1, 32, 32, generator=draw) < 0.6, 0, -1)
    fields = {
        "ramp": x.double(),
        "two tissues": ((y - 13) ** 2 + (x - 15) ** 2 < 60).double(),
        "a bowl in each cell": in_cell,
        **{f"noise {i}": torch.randn(32, 32, generator=draw).double() for i in range(6)},
    }
    sampler: PixelSampler = "stratified" if kind == "stratified" else "antithetic"
    ratios = {}
    strata = bin_pixels(label, 1)
    for name, values in fields.items():
        naive, ours = (exact_variance(values.flatten(), strata, 64, k).item() for k in ("naive", sampler))
        ratios[name] = ours / naive - 1
    return ratios


@cache
def _bank_memory() -> Comparison:
    """Megabytes of ACTION's two banks at the published widths, less those of the network that it trains."""
    import torch

    from anatolab.methods import Action
    from anatolab.nn import NETWORKS, PatchProjector

    classes, config = 4, Action.Config.official().pretraining
    patches = PatchProjector(classes)(torch.zeros(1, classes, 256, 256)).shape[1:].numel()
    network = sum(p.numel() for p in NETWORKS["basic_unet"](1, classes).parameters())
    return exactly(4e-6 * (config.bank * (config.embedding + patches) - network))


@cache
def _centers() -> Comparison:
    """Largest cosine of four centers that minimize the paper's loss, above the simplex's, less a hundredth."""
    from anatolab.analysis import least_largest_cosine
    from anatolab.losses import optimized_centers

    centers = optimized_centers(4, 128).double()
    best = least_largest_cosine(4, 128)
    assert best is not None
    cosines = (centers @ centers.T).fill_diagonal_(-1)
    return exactly(cosines.max().item() - best - 0.01)


def _groups_in_training() -> Comparison:
    """Whether CFR sees group labels in training, less whether DFR does."""
    from anatolab.robust import Cfr, Dfr

    cfr, dfr = ("group" in m.sees_in_training for m in (Cfr, Dfr))
    return exactly(float(cfr - dfr))


EXACT: dict[str, Callable[[], Comparison]] = {
    "stratified-worst-case": lambda: _worst(_variance_ratios("stratified")),
    "antithetic-worst-case": lambda: _worst(_variance_ratios("antithetic")),
    "action-bank-memory": _bank_memory,
    "centers-simplex": _centers,
    "cfr-groups": _groups_in_training,
}
