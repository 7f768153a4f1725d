"""Readings from measurements, and agreement with intervals over subjects."""

import numpy as np
import pytest

from lab import agreement, findings
from lab.reader import Reading


def made(finding, features, truth, healthy=None):
    return [Reading(finding, (k,), tuple(np.atleast_1d(f)), int(t), bool(t == 0 if healthy is None else healthy[k]))
            for k, (f, t) in enumerate(zip(features, truth))]


def test_rule__separates_what_can_be_separated():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    rule = agreement.fit("disc", made("disc", np.stack([truth + 0.1 * rng.standard_normal(300), rng.standard_normal(300)], 1), truth))
    assert np.mean(rule.read([[0.0, 1.0], [1.0, -1.0], [2.0, 0.0]]) == [0, 1, 2]) == 1


def test_rule__reads_at_most_one_healthy_endplate_in_a_hundred_as_ill():
    rng = np.random.default_rng(1)
    truth = rng.choice([-1, 0, 1], 4000, p=[0.03, 0.94, 0.03])
    values = 0.3 * truth + 0.1 * rng.standard_normal(4000)
    rule = agreement.fit("modic", made("modic", values[:, None], truth))
    read = rule.read(values[:, None])
    assert np.mean(read[truth == 0] != 0) <= 0.0101
    assert np.mean(read[truth == 1] == 1) > 0.5 and np.mean(read[truth == -1] == -1) > 0.5


def test_rule__without_examples_of_a_class_never_reads_it():
    values = np.random.default_rng(2).standard_normal(200)
    truth = (values > 1.5).astype(int)
    rule = agreement.fit("modic", made("modic", values[:, None], truth))
    assert not np.any(rule.read(values[:, None]) == -1)


def test_kappa__interval_is_wider_when_subjects_repeat_themselves():
    rng = np.random.default_rng(3)
    first = rng.integers(0, 2, 40)
    second = np.where(rng.random(40) < 0.8, first, 1 - first)
    once = agreement.kappa(first, second, np.arange(40), (0, 1))
    thrice = agreement.kappa(np.repeat(first, 3), np.repeat(second, 3), np.repeat(np.arange(40), 3), (0, 1))
    assert once[0] == pytest.approx(thrice[0])
    assert thrice[1:3] == pytest.approx(once[1:3])  # three slices of one subject are not three subjects
    assert once[1] < once[0] < once[2]


def test_share__has_an_interval_even_where_all_are_alike():
    value, low, high, n = agreement.share([True] * 10, np.arange(10))
    assert (value, high, n) == (1.0, pytest.approx(1.0), 10) and low == pytest.approx(0.722, abs=0.01)  # Wilson
    assert np.isnan(agreement.share([], [])[0])


def test_observer__is_sure_only_where_the_source_tells():
    rng = np.random.default_rng(4)
    truth = rng.choice([-1, 0, 1], 3000, p=[0.1, 0.8, 0.1])
    # The first measurement tells lesions from marrow; which way they go on the target, nothing tells.
    source = np.stack([np.abs(truth) * 2.0 + 0.3 * rng.standard_normal(3000), rng.standard_normal(3000)], 1)
    sure = findings.Observer(source, truth)([[0.0, 0.0], [2.0, 0.0]])
    assert sure[0, 1] > 0.99
    assert sure[1, 1] < 0.01 and 0.3 < sure[1, 0] < 0.7
    source[:, 1] += 5 * truth
    told = findings.Observer(source, truth)([[2.0, 5.0], [2.0, -5.0]])
    assert told[0, 2] > 0.99 and told[1, 0] > 0.99
