import math

import pytest
import torch
from torch import Tensor

from anatolab.losses import info_nce


def literal(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> float:
    """The formula, one query and one key at a time, in Python floats."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    total = 0.0
    for q, k, others in zip(query.tolist(), positive.tolist(), negatives.tolist(), strict=True):
        near = math.exp(cosine(q, k) / temperature)
        total -= math.log(near / (near + sum(math.exp(cosine(q, n) / temperature) for n in others)))
    return total / len(query)


def drawn(q: int = 6, n: int = 20, d: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Random query, positive and negatives."""
    make = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, d, generator=make, dtype=dtype) for shape in ((q,), (q,), (q, n)))  # type: ignore


def at_cosine(value: float, count: int) -> Tensor:
    """Vectors in the plane at this cosine to (1, 0), of different lengths."""
    return torch.arange(1, count + 1)[:, None] * torch.tensor([value, math.sqrt(1 - value**2)])


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_equal_cosines_give_log_of_the_number_of_keys_at_any_temperature(temperature: float) -> None:
    query = torch.tensor([[1.0, 0.0]])
    loss = info_nce(query, at_cosine(0.3, 1), at_cosine(0.3, 512), temperature)
    assert loss.item() == pytest.approx(math.log(513), abs=1e-5)
    assert round(loss.item(), 4) == 6.2403


@pytest.mark.parametrize(("cosine", "expected"), [(-1 / 3, 3.5994), (-1.0, 2.3397)])
def test_classes_that_are_as_far_apart_as_they_can_be_leave_a_floor(cosine: float, expected: float) -> None:
    query = torch.tensor([[1.0, 0.0]])
    loss = info_nce(query, query, at_cosine(cosine, 512), 0.5).item()
    assert loss == pytest.approx(math.log1p(512 * math.exp((cosine - 1) / 0.5)), abs=1e-5)
    assert round(loss, 4) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_it_equals_the_literal_loop(dtype: torch.dtype, tolerance: float, temperature: float) -> None:
    query, positive, negatives = drawn()
    loss = info_nce(query.to(dtype), positive.to(dtype), negatives.to(dtype), temperature)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(literal(query, positive, negatives, temperature), rel=tolerance, abs=tolerance)


def test_it_does_not_see_lengths_nor_the_order_of_negatives() -> None:
    query, positive, negatives = drawn()
    loss = info_nce(query, positive, negatives, 0.2)
    lengths = torch.linspace(0.1, 9, 20)[:, None]
    torch.testing.assert_close(info_nce(7 * query, 0.01 * positive, negatives * lengths, 0.2), loss)
    torch.testing.assert_close(info_nce(query, positive, negatives.flip(1), 0.2), loss)
    assert not torch.isclose(info_nce(query, positive.roll(1, 0), negatives, 0.2), loss)


def test_shared_keys_are_the_same_as_repeated_ones() -> None:
    query, positive, negatives = drawn()
    shared = info_nce(query, positive[0], negatives[0], 0.2)
    repeated = info_nce(query, positive[:1].expand(6, -1), negatives[:1].expand(6, -1, -1), 0.2)
    torch.testing.assert_close(shared, repeated)


def test_gradient_reaches_the_query_only_and_has_the_closed_form() -> None:
    query, positive, negatives = (torch.nn.functional.normalize(x, dim=-1).requires_grad_() for x in drawn())
    info_nce(query, positive, negatives, 0.2).backward()
    assert positive.grad is None
    assert negatives.grad is None
    keys = torch.cat([positive[:, None], negatives], 1).detach()
    pull = torch.softmax(torch.einsum("qd,qnd->qn", query.detach(), keys) / 0.2, 1) / 0.2
    pull[:, 0] -= 1 / 0.2
    force = torch.einsum("qn,qnd->qd", pull, keys) / len(query)
    unit = query.detach()
    torch.testing.assert_close(query.grad, force - (force * unit).sum(1, keepdim=True) * unit)


def test_without_temperature_only_the_hardest_negative_counts() -> None:
    query, positive, negatives = drawn()
    near = torch.cosine_similarity(query, positive)
    hardest = torch.cosine_similarity(query[:, None], negatives, dim=-1).amax(1)
    tau = 1e-4
    torch.testing.assert_close(tau * info_nce(query, positive, negatives, tau), (hardest - near).clamp_min(0).mean())


def test_nothing_to_pick_from_is_exactly_zero_and_keeps_the_graph() -> None:
    query, positive, negatives = drawn()
    query.requires_grad_()
    alone = info_nce(query, positive, negatives[:, :0], 0.1)
    nobody = info_nce(query[:0], positive[:0], negatives[0], 0.1)
    for loss in (alone, nobody):
        assert loss.item() == 0
        assert torch.autograd.grad(loss, query)[0].abs().max() == 0


def test_half_precision_is_computed_in_float32() -> None:
    query, positive, negatives = (x.bfloat16() for x in drawn())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(query, positive, negatives, 0.07)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(query.float(), positive.float(), negatives.float(), 0.07))
