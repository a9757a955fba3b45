"""Banks: first in, first out, without gradient, and back from a checkpoint."""

from collections import deque

import pytest
import torch

from anatolab.memory import Bank, ClassBank
from tests.syncs import Synchronizations


def test_six_batches_of_six_fill_a_bank_of_36_in_order_and_the_seventh_overwrites_the_first() -> None:
    bank, stream = Bank(36), torch.arange(42.0)[:, None]
    for batch in stream[:36].split(6):
        bank.push(batch)
    assert torch.equal(bank.rows, stream[:36])
    bank.push(stream[36:])
    assert torch.equal(bank.rows, torch.cat([stream[36:], stream[6:36]]))


@pytest.mark.parametrize("batch", [1, 5, 7, 20])
def test_a_bank_holds_the_last_rows_whatever_the_batch(batch: int) -> None:
    bank, stream = Bank(7), torch.arange(60.0)[:, None]
    for rows in stream.split(batch):
        bank.push(rows)
        seen = int(rows[-1]) + 1
        assert bank.fill == min(seen, 7)
        assert sorted(bank.rows.flatten().tolist()) == list(range(max(0, seen - 7), seen))


def test_a_row_may_be_a_single_number() -> None:
    bank = Bank(4)
    for rows in torch.arange(10).split(3):
        bank.push(rows)
    assert sorted(bank.rows.tolist()) == [6, 7, 8, 9]


def test_nothing_held_is_part_of_a_graph() -> None:
    bank, rows = Bank(4), torch.ones(2, 3, requires_grad=True)
    bank.push(rows * 2)
    assert not bank.rows.requires_grad


def test_a_bank_comes_back_with_rows_pointer_and_fill_also_into_one_that_was_never_pushed() -> None:
    bank = Bank(5, torch.float16)
    bank.push(torch.randn(7, 2, 3))
    fresh = Bank(5, torch.float16)
    fresh.load_state_dict(bank.state_dict())
    for one in (bank, fresh):
        one.push(torch.full((2, 2, 3), 9.0))
    assert torch.equal(bank.rows, fresh.rows)
    assert (fresh.fill, fresh.pointer, fresh.rows.dtype) == (5, bank.pointer, torch.float16)


# --- banks by class -----------------------------------------------------------------------------------------------


def test_class_banks_are_queues_of_each_class_however_many_rows_come() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, literal = ClassBank(3, 7, 2), [deque(maxlen=7) for _ in range(3)]
    for step in range(20):
        count = torch.randint(0, 6, (3,), generator=generator)
        rows = torch.randn(3, 5, 2, generator=generator)
        bank.push(rows, count)
        for c in range(3):
            literal[c].extend(rows[c, : count[c]].tolist())
            assert bank.fill[c] == len(literal[c]), step
            assert sorted(bank.rows[c, : bank.fill[c]].tolist()) == sorted(literal[c]), step


def test_a_class_bank_waits_for_nothing_and_survives_a_checkpoint() -> None:
    bank = ClassBank(4, 10, 3)
    with Synchronizations() as mode:
        for _ in range(4):
            bank.push(torch.randn(4, 4, 3), torch.tensor([4, 0, 2, 1]))
    assert not mode.found
    again = ClassBank(4, 10, 3)
    again.load_state_dict(bank.state_dict())
    more = torch.randn(4, 4, 3), torch.tensor([1, 2, 3, 4])
    bank.push(*more)
    again.push(*more)
    assert torch.equal(bank.rows, again.rows)
    assert bank.fill.tolist() == again.fill.tolist() == [10, 2, 10, 8]


def test_a_class_bank_refuses_more_rows_at_once_than_it_holds() -> None:
    with pytest.raises(ValueError, match="into a bank of 3"):
        ClassBank(2, 3, 1).push(torch.zeros(2, 4, 1), torch.tensor([4, 4]))
