import pytest

from tidegate import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000)


# Newer releases of Starlette would like another client; what it tests is the same.
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:Using `httpx` with")
