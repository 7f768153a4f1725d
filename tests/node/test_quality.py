"""The quality gate in the running node: what the admin and the PACS see of a result that is doubted or refused."""

import onnx
import pytest
from gatekit import CALM, gate
from harness.net import wait_for
from nodekit import jobs_settled, make_series, send

UID = "1.2.3.4.5.77"


def limit(models, text):
    """Gives the toy model these limits."""
    model = onnx.load(models / "toy.onnx")
    model.metadata_props.add(key="spinenode.gate", value=text)
    onnx.save(model, models / "toy.onnx")


def run(node):
    assert send(node.port, make_series(UID, 4)) == [0] * 4
    return wait_for(lambda: jobs_settled(node, 1), 30, "the job", pause=0.1)[0]


def test_refused__result_stays_here_with_the_reason(toy_node, models, pacs):
    limit(models, gate(unlike=(-2, -1)))
    node = toy_node()
    job = run(node)
    assert job["state"] == "refused" and job["reason"].startswith("quality: the images are unlike")
    assert not pacs.stored
    assert "spinenode_jobs_quality_refused_total 1" in node.http("/metrics")[1].decode()


@pytest.mark.parametrize("changes", [
    {}, {"quality": {"input": "mark"}},
    {"rules": [{"name": "toy", "match": {"contrast": ["T2"]}, "task": "t2-to-t1", "destinations": ["pacs"], "quality": "mark"}]}])
def test_doubted__result_goes_out_marked_and_the_job_says_why(toy_node, models, pacs, changes):
    limit(models, gate(unlike=(-2, CALM if not changes else -1)))
    node = toy_node(**changes)
    job = run(node)
    assert job["state"] == "done" and job["reason"].startswith("marked UNSURE: the images are unlike")
    assert "marked UNSURE" in node.command("jobs", "-c", str(node.config_path)).stdout
    assert "spinenode_jobs_marked_total 1" in node.http("/metrics")[1].decode()
    assert len(pacs.stored) == 4 and all("UNSURE" in r.dataset().SeriesDescription for r in pacs.stored)


def test_rule__that_passes_everything_is_other_work_than_one_that_refuses(toy_node, models, pacs):
    limit(models, gate(unlike=(-2, -1)))
    rule = {"match": {"contrast": ["T2"]}, "task": "t2-to-t1", "destinations": ["pacs"]}
    node = toy_node(rules=[{"name": "strict", **rule}, {"name": "lenient", "quality": "pass", **rule}])
    assert send(node.port, make_series(UID, 4)) == [0] * 4
    jobs = {j["rule"]: j for j in wait_for(lambda: jobs_settled(node, 2), 30, "both jobs", pause=0.1)}
    assert jobs["strict"]["state"] == "refused" and jobs["lenient"]["state"] == "done"
    assert jobs["lenient"]["reason"] == ""
