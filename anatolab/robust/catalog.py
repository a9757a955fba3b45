"""Every method by name, with the settings that it may choose among: three for each method with a choice.

A method chooses by the rule in its settings (``select``). A method that keeps its last epoch, or that names no rule,
chooses by mean accuracy on validation. DFR is fitted on validation rows and chooses inside its fit, one half against
the other. JTT's grid (lambda of 20, 50, 100) is that of its released script; AFR's grid of gamma spans the values in
its released commands; all others are ours: three learning rates, or three strengths. Where a grid has no learning rate,
that of the defaults was set by hand on validation rows that are not reported. CFR is also listed in variants: without
its calibration term, with the released negatives, with the errors of the zero-shot model, and with all released
settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from anatolab.robust._fit import Best, FeatureSet, Head, Labels, Select, Sgd, Start, selection_labels
from anatolab.robust.adapter import ContrastiveAdapter
from anatolab.robust.afr import Afr
from anatolab.robust.cfr import Cfr
from anatolab.robust.cnc import Cnc
from anatolab.robust.dfr import Dfr
from anatolab.robust.erm import ErmLinearProbe, ErmProjection
from anatolab.robust.groupdro import GroupDro
from anatolab.robust.jtt import Jtt
from anatolab.robust.wiseft import WiseFt
from anatolab.robust.zero_shot import ZeroShot
from anatolab.types import InputError


@dataclass(frozen=True)
class Entry:
    """A method of the catalog."""

    title: str
    method: Any  # class of the method
    settings: tuple[Any, ...]  # it chooses among these; the first is the default

    def make(self, start: Start, config: Any = None, select: Select | None = None) -> Any:
        """Makes the method with one of its settings.

        Args:
            start: Projection, text head and scale of the pre-trained model.
            config: One of ``settings``; the recommended one where None.
            select: A selection rule that replaces the method's own, if it has one.
        """
        config = config or self.settings[0]
        return self.method(start, replace(config, select=select) if select and hasattr(config, "select") else config)

    def sees(self, select: Select | None = None, *, choosing: bool = False) -> dict[str, Labels]:
        """Returns the labels that it uses in training and in selection.

        Args:
            select: As in :meth:`make`.
            choosing: Include the labels by which it chooses among its settings.
        """
        method = self.make(Start(torch.nn.Identity(), torch.eye(2), 1.0), select=select)
        selection = method.sees_in_selection
        if choosing and len(self.settings) > 1:
            selection = max(selection, selection_labels(rule_of(method.config)), key=len)
        return {"training": method.sees_in_training, "selection": selection}


def _grid(kind: Any, base: Any = None, /, **values: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the recommended settings first, then the product of some fields' values without these."""
    configs = [base or kind.Config()]
    for name, options in values.items():
        configs = [replace(config, **{name: option}) for config in configs for option in options]
    return tuple(configs)


def _rates(base: Sgd, *rates: float) -> list[Sgd]:
    return [replace(base, lr=lr) for lr in rates]


C = (1.0, 0.1, 0.01)  # inverse strengths of the penalty of logistic regressions
_CFR, _OFFICIAL = Cfr.Config(), Cfr.Config.official(sgd=Sgd(epochs=20, lr=1e-4))  # 100 epochs in the code
_CFR_RATES = _rates(_CFR.sgd, 1e-4, 3e-5, 3e-4)
METHODS: dict[str, Entry] = {
    "zero_shot": Entry("zero-shot", ZeroShot, (ZeroShot.Config(),)),
    "linear_probe": Entry("ERM, linear probe", ErmLinearProbe, tuple(ErmLinearProbe.Config(strengths=(c,)) for c in C)),
    "erm": Entry("ERM, projection", ErmProjection, _grid(ErmProjection, sgd=_rates(Sgd(), 1e-2, 1e-3, 1e-4))),
    "wise_ft": Entry("WiSE-FT", WiseFt, _grid(WiseFt, alpha=(0.5, 0.2, 0.8))),
    "jtt": Entry("JTT", Jtt, _grid(Jtt, extra=(100, 20, 50))),
    "afr": Entry("AFR", Afr, _grid(Afr, gamma=(4.0, 10.0, 14.0))),
    "cnc": Entry("CnC", Cnc, _grid(Cnc, sgd=_rates(Cnc.Config().sgd, 1e-4, 1e-3, 1e-2))),
    "adapter": Entry(
        "contrastive adapter",
        ContrastiveAdapter,
        _grid(ContrastiveAdapter, sgd=_rates(ContrastiveAdapter.Config().sgd, 1e-2, 1e-3, 3e-2)),
    ),
    "cfr": Entry("CFR", Cfr, _grid(Cfr, sgd=_CFR_RATES)),
    "cfr_no_calibration": Entry(
        "CFR without calibration", Cfr, _grid(Cfr, replace(_CFR, cal_weight=0.0), sgd=_CFR_RATES)
    ),
    "cfr_own_class": Entry(
        "CFR, released negatives", Cfr, _grid(Cfr, replace(_CFR, negative="same_class_as_released"), sgd=_CFR_RATES)
    ),
    "cfr_zero_shot": Entry(
        "CFR, zero-shot errors", Cfr, _grid(Cfr, replace(_CFR, reference="zero_shot"), sgd=_CFR_RATES)
    ),
    "cfr_official": Entry(
        "CFR, released settings", Cfr, _grid(Cfr, _OFFICIAL, sgd=_rates(_OFFICIAL.sgd, 1e-4, 1e-3, 1e-2))
    ),
    "groupdro": Entry("GroupDRO", GroupDro, _grid(GroupDro, sgd=_rates(GroupDro.Config().sgd, 1e-3, 1e-4, 1e-2))),
    "dfr": Entry("DFR", Dfr, (Dfr.Config(strengths=C),)),
    "dfr_train": Entry(
        "DFR on training rows", Dfr, tuple(Dfr.Config(on="training", refits=10, strengths=(c,)) for c in C)
    ),
}
VARIANTS = ("cfr_no_calibration", "cfr_own_class", "cfr_zero_shot", "cfr_official")  # of CFR, to take it apart


def rule_of(config: Any) -> Select:
    """Returns the rule by which a method chooses among settings: its own, or mean accuracy where it has none."""
    rule: Select = getattr(config, "select", "last")
    return "val_average" if rule == "last" else rule


def selection_score(method: Any, head: Head, validation: FeatureSet) -> float:
    """Computes the score of a head on validation rows by the rule of :func:`rule_of`, in [0, 1].

    Args:
        method: Its settings name the rule.
        head: A head that it fitted.
        validation: Its groups are used only by ``val_worst_group``.
    """
    return Best(rule_of(method.config), validation).score(head)


def entry_of(name: str) -> Entry:
    """Returns the entry of a method by its name.

    Raises:
        InputError: The catalog has no such method.
    """
    if name not in METHODS:
        raise InputError(f"{name!r} is not a method of anatolab.robust; choose from {', '.join(METHODS)}.")
    return METHODS[name]
