"""Fixtures of the tests of the whole node."""

import copy

import pytest
from harness.results import SourceSeries
from systemkit import Study, draw_study


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Study:
    """Five slices each of T1 and T2 at 256x256, and of a fast T2 at 128x128. Not to be changed: copy first."""
    return Study(*draw_study(tmp_path_factory.mktemp("study"), "--size", "256", "--slices", "5", "--seed", "3"))


@pytest.fixture
def renamed(new_uid):
    """renamed(series) -> deep copies of its images under a new series and new instances, in the same study."""

    def rename(series: SourceSeries) -> list:
        images, uid = copy.deepcopy(series.images), new_uid()
        for image in images:
            image.SeriesInstanceUID = uid
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = new_uid()
        return images

    return rename
