"""Readings from measurements, and agreement with intervals over subjects."""

import numpy as np
import pytest

from lab import agreement, findings, testset
from lab.anatomy import Subject
from lab.reader import Reading
from lab.tasks import TASKS


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
    sure = findings.Observer(source, truth, (-1, 0, 1))([[0.0, 0.0], [2.0, 0.0]])
    assert sure[0, 1] > 0.99
    assert sure[1, 1] < 0.01 and 0.3 < sure[1, 0] < 0.7
    source[:, 1] += 5 * truth
    told = findings.Observer(source, truth, (-1, 0, 1))([[2.0, 5.0], [2.0, -5.0]])
    assert told[0, 2] > 0.99 and told[1, 0] > 0.99


def test_observer__is_not_sure_of_what_lies_far_from_all_that_he_knows():
    rng = np.random.default_rng(5)
    classes = np.repeat([0, 1], 500)
    observer = findings.Observer(classes[:, None] * 3 + rng.standard_normal((1000, 1)), classes, (0, 1))
    assert observer([[3.5]])[0, 1] > 0.95 and observer([[100.0]])[0, 1] < 0.8


def test_observer__who_lacks_a_measurement_says_what_is_usual():
    rng = np.random.default_rng(6)
    classes = np.repeat([0, 1], 500)
    source = (1 + 4 * classes[:, None]) * rng.standard_normal((1000, 2))
    source[::10, 1] = np.nan
    observer = findings.Observer(source, classes, (0, 1), (0.9, 0.1))
    assert observer([[0.1, np.nan]])[0] == pytest.approx([0.9, 0.1])
    assert observer([[0.1, 0.1]])[0, 0] > 0.95 and observer([[8.0, 8.0]])[0, 1] > 0.95


def test_held_out__asks_nobody_about_those_whom_he_was_made_of():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 20)
    readings = (groups == 3).astype(int)  # only he has it
    source = readings[:, None] * 5 + rng.standard_normal((800, 1))
    probable = findings.held_out(source, readings, groups, (0, 1))
    assert findings.Observer(source, readings, (0, 1))(source[groups == 3])[:, 1].min() > 0.01
    assert probable[groups == 3, 1].max() < 1e-6


def claims(seed, subjects=60, above=0.98, below=0.7):
    """(claimed probability, right?, subject): he is surer than he may be below 0.8."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, 6 * subjects)
    return sure, rng.random(len(sure)) < np.where(sure < 0.8, below, above), np.repeat(np.arange(subjects), 6)


def test_threshold__leaves_an_observer_who_is_right_nine_times_in_ten():
    rights = []
    for seed in range(5):
        threshold = findings.Threshold(*claims(seed))
        sure, right, _ = claims(100 + seed, 2000)
        rights.append(right[sure >= threshold.least].mean())
        assert 0.65 < threshold.least < 0.85 and threshold.right[1] >= 0.9
    assert min(rights) >= 0.9


def test_threshold__is_nowhere_for_one_who_is_wrong_or_hardly_known():
    assert all(findings.Threshold(*claims(seed, above=0.8)).least == np.inf for seed in range(5))
    assert findings.Threshold(*claims(0, subjects=findings.LEAST_SUBJECTS - 1, above=1, below=1)).least == np.inf
    assert findings.Threshold(*claims(0, above=1, below=1)).least == 0.5
    assert findings.Threshold([], [], []).least == np.inf


def readings_of(finding, rows, slices=3):
    """[(seed, slice, Reading)] of (seed, place, features, truth)."""
    return [(seed, k, Reading(finding, place, tuple(features), truth, truth == 0)) for seed, place, features, truth in rows for k in range(slices)]


def test_measurements__are_those_of_the_place_its_slices_and_its_disc():
    rows = [(1, (4, 1), (0.5, 0.6), 1), (1, (4, -1), (0.3, 0.2), 0)]
    readings = readings_of("modic", rows) + readings_of("disc", [(1, (4,), (0.1, 0.4, 0.0, 0.0), 0)], 2)
    readings[0] = (1, 0, Reading("modic", (4, 1), (0.8, 0.6), 1, False))
    measured = findings.measurements(readings, "modic")
    assert measured[1, 1, 4, 1] == pytest.approx([0.5, 0.6, 0.6, 0.6, 0.3, 0.3])
    assert measured[1, 0, 4, -1] == pytest.approx([0.3, 0.2, 0.3, 0.2, 0.8, 0.3])
    assert np.isnan(measured[1, 2, 4, 1][-1])  # no disc was read there
    assert len(findings.measurements(readings, "disc")[1, 0, 4]) == 8


def test_weights__make_subjects_as_frequent_as_ordinary_ones():
    ordinary = testset.seeds("validation", 12)
    chosen = testset.with_modic("validation", 7, 12)
    assert len(set(chosen) - set(ordinary)) == 7 and all(Subject(s).modics for s in chosen)
    weights = findings.weights_of(set(ordinary), set(chosen))
    ill = [s for s in weights if Subject(s).modics]
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(weights[s] for s in ill) == pytest.approx(np.mean([bool(Subject(s).modics) for s in ordinary]))
    assert set(weights) == {*ordinary, *chosen} and 0 < len(ill) - 7 < 12


class Plain:
    """A reader who reads the truth, and one expert."""

    def __init__(self, expert):
        self.one = expert

    def read(self, _, places):
        return np.array([r.truth for r in places.values()])

    def expert(self, *_):
        return self.one


def spine(seeds, told):
    """(source, target) readings of endplates and discs; told: does the source say whether a lesion darkens?  A healthy one is at 0."""
    source, target = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for level in range(4, 9):
            kind = rng.choice([-1, 0, 1], p=[0.15, 0.7, 0.15])
            for sign in (-1, 1):
                features = (abs(kind) * 2, kind * 2 if told else 0.0) + 0.3 * rng.standard_normal(2)
                source += readings_of("modic", [(seed, (level, sign), features, abs(kind))])
                target += readings_of("modic", [(seed, (level, sign), features, kind)])
            source += readings_of("disc", [(seed, (level,), rng.standard_normal(4), 0)])
    return source, target


def expert_of(told):
    source, target = spine(range(60), told)
    measured, seen = findings.measurements(source, "modic"), findings.by_place(target, "modic")
    truth = np.array([seen[k].truth for k in measured])
    return findings.Expert("modic", list(measured.values()), truth, truth, [k[0] for k in measured], np.ones(len(truth)))


def test_lesions__are_carried_where_the_source_says_which_way_they_go():
    source, target = spine(range(1000, 1030), True)
    found = findings.lesions(Plain(expert_of(True)), TASKS["t2-to-stir"], source, target, target)
    assert found["carried"][3] == found["all"][3] and found["carried_observer"][0] > 0.95 and found["subjects"] > 20
    source, target = spine(range(1000, 1030), False)
    found = findings.lesions(Plain(expert_of(False)), TASKS["t2-to-stir"], source, target, target)
    assert found["carried"][3] == 0 and found["visible"][3] > 100 and found["threshold"].least == np.inf


def test_offsets__are_those_that_agree_best():
    """What is rare is never the likeliest, but where it is likelier than elsewhere it is best said to be there."""
    readings = np.repeat([0, 1], [90, 10])
    probable = np.where(readings == 1, 0.3, 0.05)
    probable = np.stack([1 - probable, probable], 1)
    offsets = findings.best_offsets(probable, readings, (0, 1), np.ones(100))
    assert probable.argmax(1).max() == 0 and np.array_equal((np.log(probable) + offsets).argmax(1), readings)


def test_bound__is_what_the_measurements_of_the_source_hold():
    for told, low, high in ((True, 0.9, 1.0), (False, 0.2, 0.75)):
        source, target = spine(range(1000, 1030), told)
        bounds = findings.bounds(Plain(expert_of(told)), TASKS["t2-to-stir"], source, target, ("modic",))
        assert low < bounds["modic"][0] <= high and bounds["modic"][3] == 900


def test_hidden_lesions__are_held_against_the_same_people_without_them():
    class Told:
        def read(self, contrast, found):
            return np.array([r.features[0] for r in found.values()])

    def readings(answers):
        places = [((level, sign), level == 1) for level in (1, 2) for sign in (1, -1)]
        return [(seed, 0, Reading("modic", place, (answers[ill],), int(ill), not ill)) for seed in range(6) for place, ill in places]

    found = findings.hidden(Told(), TASKS["t2-to-stir"], readings((0, 0)), readings((0, 1)), readings((0, 1)),
                            (readings((0, 1)), readings((1, 0))))
    assert (found["source"][0], found["native"][0], found["synthetic"][0], found["absent"][0], found["invented"][0]) == (0, 1, 1, 0, 0)
    assert found["absent_native"][0] == 1 and found["absent"][3] == 12 and "absent" not in findings.hidden(Told(), TASKS["t2-to-stir"], readings((0, 0)), readings((0, 1)), readings((0, 1)))
