"""Work for several processes: done whether or not they can share a semaphore."""

import multiprocessing
import os

import pytest

from lab import crew


def fold(folder, name, fail=False):
    if fail:
        raise ValueError(f"{name} fails")
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))


@pytest.fixture(params=["together", "alone"])
def way(request, monkeypatch):
    if request.param == "alone":
        def refused(*_):
            raise PermissionError(13, "Permission denied")
        monkeypatch.setattr(multiprocessing, "Lock", refused)
    elif not crew.possible():
        pytest.skip("processes cannot share a semaphore here")
    return request.param


def test_spread__does_every_call_and_counts(way, tmp_path):
    told = []
    crew.spread(fold, [(str(tmp_path), str(k)) for k in range(5)], 2, lambda done, of: told.append((done, of)))
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3", "4"]
    assert told == [(k, 5) for k in range(1, 6)]
    here = {int((tmp_path / str(k)).read_text()) == os.getpid() for k in range(5)}
    assert here == {way == "alone"}


def test_spread__raises_what_a_call_raised(way, tmp_path):
    with pytest.raises(ValueError, match="second fails"):
        crew.spread(fold, [(str(tmp_path), "first"), (str(tmp_path), "second", True)], 1)
    assert os.listdir(tmp_path) == ["first"]


def test_pool__is_prepared_before_it_works(way, tmp_path):
    with crew.pool(2, fold, (str(tmp_path), "prepared")) as pool:
        assert list(pool.map(os.path.exists, [str(tmp_path / "prepared")] * 3)) == [True] * 3
