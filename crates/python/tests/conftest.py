import pytest

from tidegate import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000)
