"""`engine`: once for each engine of the build; `fast_engine`: each but the reference. `opcheck`: the program, or a failure that says how to get it."""

import enginekit
import pytest


def pytest_generate_tests(metafunc):
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", enginekit.engines())
    if "fast_engine" in metafunc.fixturenames:
        metafunc.parametrize("fast_engine", [name for name in enginekit.engines() if name != "ref"])


@pytest.fixture(scope="session", autouse=True)
def opcheck():
    if not enginekit.OPCHECK.exists():
        pytest.fail(f"{enginekit.OPCHECK} is not built: make engine")
    return enginekit.OPCHECK
