"""What the campaign's tests share."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Puts the environment back, which a world of the campaign points at folders of its own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
