"""The automatic reader sees, in native images, what the phantom put there, and nothing where there is nothing.

Subjects are drawn once for one state of the phantom's code and kept in build/reader.
"""

import copy
import os

import numpy as np
import pytest
from scipy import ndimage

from lab import agreement, dataset, reader, scanner, testset, tissue
from lab.anatomy import S1, Subject
from lab.spine import Plane


CACHE = os.path.join(os.path.dirname(__file__), "..", "..", "build", "reader")


def case(offset, findings=None, contrasts=("t1", "t2", "stir"), size=256, alter=None):
    return testset.cached(CACHE, dataset.SPLITS["validation"] + offset, contrasts, 1, size, findings, alter)


def readings(c, contrast, finding):
    view = reader.Slice.of_field(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)
    return [r for r in reader.read(view, contrast) if r.finding == finding]


@pytest.fixture(scope="module")
def cases():
    return [case(3000 + k) for k in range(16)]


@pytest.fixture(scope="module")
def ill():
    """For each type of Modic four subjects who have it, and a protrusion."""
    return {kind: [case(5000 + 10 * kind + k, {f"modic{kind}", "protrusion"}) for k in range(4)] for kind in (1, 2, 3)}


@pytest.mark.parametrize("contrast,least", [("t2", 0.7), ("stir", 0.7), ("t1", 0.35)])
def test_disc__is_graded_as_it_is(cases, contrast, least):
    """Each subject by rules from the others: by rules from itself, anything at all is graded at 0.7."""
    found = [readings(c, contrast, "disc") for c in cases]
    graded = []
    for k, own in enumerate(found):
        rule = agreement.fit("disc", [r for other in found[:k] + found[k + 1:] for r in other])
        graded += list(rule.read([r.features for r in own]))
    truth = [r.truth for own in found for r in own]
    assert agreement.kappa(graded, truth, np.arange(len(truth)), (0, 1, 2))[0] > least


def test_protrusion__darkens_the_canal_behind_its_disc(ill):
    found = [r for cases in ill.values() for c in cases for r in readings(c, "t2", "protrusion")]
    value, truth = np.array([r.features[0] for r in found]), np.array([r.truth for r in found])
    assert truth.sum() >= 4
    assert np.median(value[truth == 1]) < np.median(value[truth == 0]) - 0.3


@pytest.mark.parametrize("kind,contrast", [(1, "stir"), (1, "t1"), (2, "t1"), (3, "t2")])
def test_modic__moves_the_endplate_as_radiology_says(ill, kind, contrast):
    found = [r for c in ill[kind] for r in readings(c, contrast, "modic")]
    lesions, healthy = [r.features[0] for r in found if r.truth], [r.features[0] for r in found if r.healthy]
    assert len(lesions) >= 4
    assert reader.MODIC_SIGN[contrast][kind] * (np.median(lesions) - np.median(healthy)) > 0.08


@pytest.mark.parametrize("contrast", ["t1", "t2", "stir"])
def test_heights__are_found_at_edges_in_the_image(cases, contrast):
    errors = []
    for c in cases:
        view = reader.Slice.of_field(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)
        for i in reader.BODIES:
            body = c.subject.bodies[i]
            found = reader.heights(view, body, contrast)
            if found:
                truth = [float(body.top(np.float64(p)) + body.bottom(np.float64(p))) for p in (-0.34 * body.depth, 0.34 * body.depth)]
                errors += [found[0][0] - truth[0], found[0][2] - truth[1]]
    errors = np.array(errors) - np.median(errors)  # the endplate's own thickness is the same everywhere
    assert len(errors) > 60 and np.mean(np.abs(errors) < 2.0) > 0.75


def test_heights__do_not_know_the_truth(cases):
    """What the subject says of a body's height is not asked."""
    c = cases[0]
    view = reader.Slice.of_field(c.images["t1"][0], c.subject, c.positions[0], c.field_mm)
    flat = copy.copy(c.subject.bodies[S1 + 3])
    before = reader.heights(view, flat, "t1")[0]
    flat.front, flat.back, flat.concave_top = 0.5 * flat.front, 0.7 * flat.back, 6.0
    assert reader.heights(view, flat, "t1")[0] == before


def test_fracture__lowers_the_part_of_the_body_that_gave_way():
    def readable(offset):  # two lumbar fractures that are not neighbours
        broken = sorted(Subject(dataset.SPLITS["validation"] + offset, {"wedge", "biconcave"}).fractures)
        return broken[1] <= S1 + 5 and broken[1] - broken[0] > 1

    wedge, biconcave, normal = [], [], []
    for offset in [k for k in range(6200, 6300) if readable(k)][:4]:
        for r in readings(case(offset, {"wedge", "biconcave"}, ("t2",)), "t2", "fracture"):
            (normal if r.healthy else wedge if r.truth == 1 else biconcave if r.truth == 2 else []).append(r.features)
    assert len(wedge) >= 3 and len(biconcave) >= 3
    wedge, biconcave, normal = (np.median(v, 0) for v in (wedge, biconcave, normal))
    assert wedge[0] < normal[0] - 0.1 and wedge[1] < normal[1] - 0.1
    assert biconcave[2] < normal[2] - 0.08


@pytest.mark.parametrize("source,targets", [("t2", ("stir", "tirm")), ("t1", ("stir",))])
def test_hidden_lesion__is_nil_on_its_source_and_plain_on_the_target(source, targets):
    seen = {c: [] for c in (source, *targets)}
    for k in range(2):
        c = case(7000 + k, {"modic1"}, ("t1", "t2", "stir", "tirm"), 256, f"hidden on {source}")
        for contrast, values in seen.items():
            found = readings(c, contrast, "modic")
            healthy = np.median([r.features[0] for r in found if r.healthy])
            values += [r.features[0] - healthy for r in found if r.truth]
    assert np.median(np.abs(seen[source])) < 0.12
    for target in targets:
        assert np.min(seen[target]) > 0.25 and np.median(seen[target]) > 0.6


@pytest.mark.parametrize("source", ["t1", "t2"])
def test_hidden_lesion__is_outlined_by_chemical_shift_only_where_that_is_asked_for(source):
    shifts = []
    for name in (f"hidden on {source}", f"hidden on {source}{testset.OUTLINED}"):
        *_, protocols, _ = testset.prepare(dataset.SPLITS["validation"] + 7200, ("t1", "t2", "stir"), 384, {"modic1"}, name)
        shifts.append({c: scanner.FAT_SHIFT_HZ / p.bandwidth_hz for c, p in protocols.items()})  # pixels
    hidden, outlined = shifts
    assert hidden[source] < 0.01 < 0.5 < outlined[source]
    assert all(hidden[c] == outlined[c] for c in hidden if c != source)


def test_hidden_lesion__has_the_grain_of_the_marrow_around_it():
    """A lesion that its brightness does not show must not be told by its texture either: the network would read that."""
    ratios = []
    for seed in range(7100, 7106):
        grain, place = {}, None
        for there in (True, False):
            subject, _, field, protocols, _ = testset.prepare(dataset.SPLITS["validation"] + seed, ("t2",), 256, {"modic1"}, "hidden on t2")
            (level, _), = subject.modics.items()
            disc, step = subject.discs[level], field / 512
            disc.modic *= there
            plane = Plane(subject, disc.x, disc.frame.y + step * np.arange(-60, 60), disc.frame.z + step * np.arange(60, -60, -1), 0)
            water, fat = tissue.signals(protocols["t2"], subject.values, subject.flow)
            image = np.tensordot(water + fat, plane.paint().fractions, 1)
            place = ndimage.binary_erosion(plane.marked > 0.95, iterations=3) if there else place
            grain[there] = (image - ndimage.gaussian_filter(image, 3))[place].std()
        ratios.append(grain[True] / grain[False])
    assert 0.8 < np.median(ratios) < 1.2, ratios


@pytest.mark.parametrize("source", ["t1", "t2"])
def test_absent_lesion__leaves_everything_else_of_the_same_person(source):
    target = "t2" if source == "t1" else "stir"
    there, absent = (case(7210, {"modic1"}, alter=f"hidden on {source}{kind}") for kind in ("", testset.ABSENT))
    assert any(d is not None and d.modic for d in there.subject.discs) and not any(d is not None and d.modic for d in absent.subject.discs)
    changed = np.abs(there.images[target] - absent.images[target])[0] > 0.15
    assert 0.0002 < changed.mean() < 0.03
    assert np.abs(there.images[target] - absent.images[target])[0][~changed].mean() < 0.03
