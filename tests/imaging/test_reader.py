"""The automatic reader sees, in native images, what the phantom put there, and nothing where there is nothing."""

import numpy as np
import pytest

from lab import agreement, dataset, reader, testset
from lab.anatomy import S1


def case(offset, findings=None, contrasts=("t1", "t2", "stir"), size=256, alter=None):
    return testset.draw(dataset.SPLITS["validation"] + offset, contrasts, 1, size, findings, alter)


def readings(c, contrast, finding):
    view = reader.Slice.of_field(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)
    return [r for r in reader.read(view, contrast) if r.finding == finding]


@pytest.fixture(scope="module")
def cases():
    return [case(3000 + k) for k in range(10)]


@pytest.mark.parametrize("contrast,least", [("t2", 0.8), ("stir", 0.6), ("t1", 0.2)])
def test_disc__is_graded_as_it_is(cases, contrast, least):
    found = [r for c in cases for r in readings(c, contrast, "disc")]
    rule = agreement.fit("disc", found)
    assert agreement.kappa(rule.read([r.features for r in found]), [r.truth for r in found], np.arange(len(found)), (0, 1, 2))[0] > least


def test_protrusion__darkens_the_canal_behind_its_disc():
    found = [r for k in range(12) for r in readings(case(4000 + k, {"protrusion"}, ("t2",)), "t2", "protrusion")]
    value, truth = np.array([r.features[0] for r in found]), np.array([r.truth for r in found])
    assert truth.sum() >= 4
    assert np.median(value[truth == 1]) < np.median(value[truth == 0]) - 0.3


@pytest.mark.parametrize("kind,contrast", [("modic1", "stir"), ("modic1", "t1"), ("modic2", "t1"), ("modic3", "t2")])
def test_modic__moves_the_endplate_as_radiology_says(kind, contrast):
    ill, healthy = [], []
    for k in range(30):
        for r in readings(case(5000 + k, {kind}, (contrast,)), contrast, "modic"):
            (ill if r.truth else healthy if r.healthy else []).append(r.features[0])
        if len(ill) >= 8:
            break
    sign = reader.MODIC_SIGN[contrast][int(kind[-1])]
    assert sign * (np.median(ill) - np.median(healthy)) > 0.08


@pytest.mark.parametrize("contrast,tolerance", [("t1", 1.5), ("t2", 2.0), ("stir", 2.5)])
def test_heights__are_found_at_edges_in_the_image(contrast, tolerance):
    errors = []
    for k in range(3):
        c = case(6000 + k, contrasts=(contrast,), size=384)
        view = reader.Slice.of_field(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)
        for i in reader.BODIES:
            body, found = c.subject.bodies[i], None
            found = reader.heights(view, body, contrast)
            if found:
                truth = [float(body.top(np.float64(p)) + body.bottom(np.float64(p))) for p in (-0.34 * body.depth, 0.34 * body.depth)]
                errors += [found[0][0] - truth[0], found[0][2] - truth[1]]
    errors = np.array(errors) - np.median(errors)  # the endplate's own thickness is the same everywhere
    assert len(errors) > 25 and np.mean(np.abs(errors) < tolerance) > 0.8


def test_heights__do_not_know_the_truth():
    """A body that is painted flat is measured flat, whatever the subject says of it."""
    c = case(6100, set(), ("t1",))
    view = reader.Slice.of_field(c.images["t1"][0], c.subject, c.positions[0], c.field_mm)
    body = c.subject.bodies[S1 + 3]
    before = reader.heights(view, body, "t1")[0]
    body.front, body.back, body.concave_top = 0.5 * body.front, 0.7 * body.back, 6.0
    assert reader.heights(view, body, "t1")[0] == before


def test_fracture__lowers_the_part_of_the_body_that_gave_way():
    wedge, biconcave, normal = [], [], []
    for k in range(4):
        for r in readings(case(6200 + k, {"wedge", "biconcave"}, ("t2",), 384), "t2", "fracture"):
            (normal if r.healthy else wedge if r.truth == 1 else biconcave if r.truth == 2 else []).append(r.features)
    wedge, biconcave, normal = (np.median(v, 0) for v in (wedge, biconcave, normal))
    assert wedge[0] < normal[0] - 0.1 and wedge[1] < normal[1] - 0.1
    assert biconcave[2] < normal[2] - 0.08


@pytest.mark.parametrize("source,targets", [("t2", ("stir", "tirm")), ("t1", ("stir",))])
def test_hidden_lesion__is_nil_on_its_source_and_plain_on_the_target(source, targets):
    seen = {c: [] for c in (source, *targets)}
    for k in range(3):
        c = case(7000 + k, {"modic1"}, ("t1", "t2", "stir", "tirm"), 256, f"hidden on {source}")
        for contrast, values in seen.items():
            found = readings(c, contrast, "modic")
            healthy = np.median([r.features[0] for r in found if r.healthy])
            values += [r.features[0] - healthy for r in found if r.truth]
    assert np.median(np.abs(seen[source])) < 0.12
    for target in targets:
        assert np.min(seen[target]) > 0.4
