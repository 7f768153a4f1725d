"""Fixtures of the tests of dicom/."""

import os
import sys
from pathlib import Path

import pytest
from dicomkit import save

sys.path.insert(0, str(Path(__file__).parent))

from driverkit import Driver  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def driver() -> Driver:
    build = Path(os.environ.get("SPINENODE_BUILD", ROOT / "build"))
    program = (build if build.is_absolute() else ROOT / build) / "tests" / "dicom_driver"
    if not program.exists():
        pytest.fail(f"{program} is not built: make unit-programs")
    return Driver(program)


@pytest.fixture
def look(driver, tmp_path):
    """look(images, *options) -> what the driver says of the series that they make."""

    def run(images: list, *options: str) -> dict:
        return driver.series(save(tmp_path / "in", images), *options)

    return run
