"""Training: networks that are what they say, runs that survive being cut off, exports equal to PyTorch.

Needs PyTorch (make setup-train); skipped where it is not installed.
"""

import csv
import glob
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from lab import baselines, dataset, degrade, losses, metrics, networks, training  # noqa: E402
from lab.tasks import TASKS  # noqa: E402

SMALL = {"kind": "resunet", "widths": [8, 12], "blocks": [1, 1]}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def experiment(folder, **train):
    import yaml
    spec = {"task": "t2-to-t1", "version": "0.0.1", "name": "t2-to-t1 test", "seed": 5, "network": SMALL,
            "data": {"subjects": 2, "validation": 1, "crop": 64},
            "train": {"steps": 30, "batch": 2, "rate": 0.002, "l1": 100.0, "gradient": 10.0, "ssim": 1.0, "gan": 0.0,
                      "gan_from": 1.0, "average": 0.9, **train}}
    path = os.path.join(folder, "test.yaml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(spec, file)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_super_resolution__starts_as_cubic_interpolation():
    net = networks.SuperResolution(width=8, depth=1)
    torch.nn.init.zeros_(net.tail.weight)
    x = torch.rand(2, 1, 12, 17)
    assert torch.allclose(net(x), F.interpolate(x, scale_factor=4, mode="bicubic"), atol=1e-5)


@pytest.mark.parametrize("spec", [{"kind": "resunet", "widths": [8, 12, 16], "blocks": [1, 1, 1]}, {"kind": "encoder-decoder", "base": 8, "depth": 5},
                                  {"kind": "encoder-decoder", "base": 8, "depth": 5, "skips": True}], ids=["resunet", "encoder-decoder", "u-net"])
def test_generators__keep_the_size(spec):
    net = networks.build(spec)
    n = net.multiple
    assert net.eval()(torch.zeros(1, 1, 2 * n, 3 * n)).shape == (1, 1, 2 * n, 3 * n)


@pytest.mark.parametrize("spec", [SMALL, {"kind": "encoder-decoder", "base": 4, "depth": 3, "skips": True}], ids=["resunet", "u-net"])
def test_only__gives_one_channel_of_the_network_that_learned_several(spec):
    torch.manual_seed(0)
    net = networks.build({**spec, "outputs": 3}).eval()
    x = torch.rand(1, 1, 16, 24)
    together = net(x)
    assert together.shape == (1, 3, 16, 24)
    assert torch.allclose(net.only(1)(x), together[:, 1:2], atol=1e-6)


def test_skips__carry_detail_that_does_not_fit_through_the_bottleneck():
    def spread(skips):
        """Share of an impulse's effect that stays within the first level's reach of it."""
        torch.manual_seed(0)
        net = networks.build({"kind": "encoder-decoder", "base": 8, "depth": 6, "skips": skips}).eval()
        x = torch.zeros(2, 1, 64, 64)
        x[1, 0, 32, 32] = 1.0
        with torch.no_grad():
            effect = (net(x)[1] - net(x)[0]).abs()[0]
        return float(effect[28:37, 28:37].sum() / effect.sum())
    assert spread(True) > 3 * spread(False)


def test_degrade__equals_pytorch_interpolation():
    image = np.random.default_rng(0).random((64, 48), dtype=np.float32)
    x = torch.from_numpy(image)[None, None]
    plain = F.interpolate(x, scale_factor=0.25, mode="bilinear")[0, 0].numpy()
    smooth = F.interpolate(x, scale_factor=0.25, mode="bilinear", antialias=True)[0, 0].numpy()
    assert degrade.linear(image, 4) == pytest.approx(plain, abs=1e-6)
    assert degrade.antialiased(image, 4)[1:-1, 1:-1] == pytest.approx(smooth[1:-1, 1:-1], abs=1e-6)


def test_structure_loss__is_one_minus_ssim():
    rng = np.random.default_rng(0)
    a = rng.random((40, 50)) * 2 - 1
    b = a + 0.1 * rng.standard_normal(a.shape)
    loss = losses.structure(torch.tensor(a)[None, None], torch.tensor(b)[None, None])
    # The loss uses population variances (1/49), the measure sample variances (1/48).
    assert 1 - float(loss) == pytest.approx(metrics.ssim(a, b, 2.0), abs=0.003)


def test_run__goes_on_where_it_was_cut_off(tmp_path, cache, monkeypatch):
    path, run = experiment(tmp_path), str(tmp_path / "run")
    real = training.Run.learn

    def cut(self, *args):
        if self.step == 12:
            self.save()
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(training.Run, "learn", cut)
    with pytest.raises(KeyboardInterrupt):
        training.train(path, run, cache, threads=1, workers=1)
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(training.Run, "learn", lambda self, *a: steps.append(self.step) or real(self, *a))
    training.train(path, run, cache, threads=1, workers=1)
    assert steps == list(range(12, 30))
    with open(os.path.join(run, "curve.csv"), encoding="utf-8") as file:
        assert int(list(csv.DictReader(file))[-1]["step"]) == 30
    assert glob.glob(os.path.join(run, "samples", "*.png"))


@pytest.mark.parametrize("gan", [0.0, 1.0])
def test_learning__lowers_the_loss(tmp_path, cache, gan):
    import yaml
    with open(experiment(tmp_path, gan=gan, gan_from=0.0), encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    run = training.Run(spec, str(tmp_path / "run"), cache)
    pool = run.task.pool(dataset.build(cache, "train", 2, workers=1))
    pairs = [run.task.pair(pool, np.random.default_rng([1, k]), 64) for k in range(4)]
    batch = [torch.from_numpy(np.stack(side)) for side in zip(*pairs)]
    first = run.learn(*batch, 0.2)["l1"]
    for run.step in range(1, 60):
        last = run.learn(*batch, 0.2)["l1"]
    assert last < 0.6 * first


def test_export__equals_pytorch_and_says_what_it_is(tmp_path, cache):
    onnx = pytest.importorskip("onnx")
    from lab import export
    path, run = experiment(tmp_path, steps=3), str(tmp_path / "run")
    training.train(path, run, cache, threads=1, workers=1)
    facts = export.export(run, str(tmp_path / "t2-to-t1.onnx"))
    assert facts["difference"] < export.GREY_LEVEL
    model = onnx.load(str(tmp_path / "t2-to-t1.onnx"))
    said = {p.key: p.value for p in model.metadata_props}
    assert said["spinenode.task"] == "t2-to-t1" and said["spinenode.grid"] == "any:4"
    assert said["spinenode.training"].startswith("scripts/train test; 3 steps of 2 crops; commit ")
    known = {"Conv", "ConvTranspose", "LeakyRelu", "Add", "Mul", "Clip", "Cast", "DepthToSpace", "Pad", "Constant"}
    assert {n.op_type for n in model.graph.node} <= known


def test_begin__takes_up_the_weights_of_exported_models(tmp_path, cache):
    import yaml
    onnx = pytest.importorskip("onnx")
    from lab import export
    from lab.begin import begin_with
    path = experiment(tmp_path, steps=2)
    with open(path, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    spec |= {"task": "t2-to-all", "name": "t2-to-all test", "network": {**SMALL, "outputs": 3}}
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(spec, file)
    run = training.train(path, str(tmp_path / "run"), cache, threads=1, workers=1)
    files = [str(tmp_path / f"t2-to-{name}.onnx") for name in ("t1", "stir", "tirm")]
    for file in files:
        export.export(run, file, task=os.path.basename(file)[:-5])
    torch.manual_seed(9)
    net, old = networks.build(spec["network"]), export.load(run)[1]
    words = begin_with(net, files)
    x = torch.rand(1, 1, 32, 32)
    assert torch.allclose(net(x), old(x), atol=2e-3) and "t2-to-stir test 0.0.1" in words
    begun = training.Run(spec, str(tmp_path / "next"), cache)
    begun.begin(files)
    begun.save()
    again = training.Run(spec, str(tmp_path / "next"), cache)
    assert again.resume() and again.begun == words
    assert torch.allclose(again.mean(x), old(x), atol=2e-3)
    for wrong in ({**SMALL, "widths": [8, 16], "outputs": 3}, {**SMALL, "blocks": [1, 2], "outputs": 3}):
        with pytest.raises(ValueError, match="t2-to-t1.onnx"):
            begin_with(networks.build(wrong), files)
    assert onnx.load(files[0]).metadata_props


def test_context__is_learned_from_exported_and_begun_without(tmp_path, cache):
    import yaml
    pytest.importorskip("onnxruntime")
    from lab import export
    from lab.begin import begin_with
    from lab.engine import Model
    path, run = experiment(tmp_path, steps=3), str(tmp_path / "run")
    training.train(path, run, cache, threads=1, workers=1)
    export.export(run, str(tmp_path / "one.onnx"))
    net = networks.build({**SMALL, "inputs": 3})
    begin_with(net, [str(tmp_path / "one.onnx")])
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(net(x), export.load(run)[1](x[:, 1:2]), atol=2e-3)

    with open(path, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    spec["network"] = {**SMALL, "inputs": 3}
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(spec, file)
    run = training.train(path, str(tmp_path / "three"), cache, threads=1, workers=1)
    facts = export.export(run, str(tmp_path / "three.onnx"))
    model = Model(str(tmp_path / "three.onnx"))
    assert facts["difference"] < export.GREY_LEVEL and model.context == 3
    assert model.stack(np.random.default_rng(0).random((4, 40, 36))).shape == (4, 40, 36)


def test_pairs__give_the_slice_between_its_neighbours(cache):
    task = TASKS["t2-to-all"]
    pool = task.pool(dataset.build(cache, "train", 2, workers=1), context=3)
    pairs = [task.pair(pool, np.random.default_rng(k), 64) for k in range(60)]
    assert {(s.shape, t.shape) for s, t in pairs} == {((3, 64, 64), (4, 64, 64))}
    assert {s.dtype for s, _ in pairs} == {t.dtype for _, t in pairs} == {np.dtype(np.float32)}
    shown = [s for s, t in pairs if t[0].std() > 0.2]
    beside = np.mean([np.abs(s[0] - s[2]).mean() for s in shown])
    assert np.mean([np.abs(s[0] - s[1]).mean() + np.abs(s[1] - s[2]).mean() for s in shown]) < 2 * beside
    target = [[abs(np.corrcoef(one.ravel(), t[1].ravel())[0, 1]) for one in s] for s, t in pairs if t[1].std() > 0.1 and s.std() > 0.1]
    assert np.argmax(np.mean(target, 0)) == 1  # what is to be made is the slice in the middle


def test_pairs__line_up_low_and_high_resolution(cache):
    task = TASKS["super-resolution"]
    pool = task.pool(dataset.build(cache, "train", 2, workers=1))
    pool.slices = [s for s in pool.slices if s[0].shape[-1] >= 192] or pytest.skip("no slice is large enough")
    for k in range(5):
        low, high = task.pair(pool, np.random.default_rng(k), 64)
        assert low.shape == (1, 16, 16) and high.shape == (2, 64, 64)
        mean = high[0].reshape(16, 4, 16, 4).mean((1, 3))
        if high.std() > 0.1:
            assert np.corrcoef(mean.ravel(), low.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("task,network,crop", [("t2-to-all", {"base": 4, "depth": 5, "outputs": 3}, 32),
                                               ("super-resolution", {"base": 4, "depth": 6, "scale": 4}, 64)])
def test_papers_network__learns_whole_slices_and_is_exported_for_their_size(tmp_path, cache, task, network, crop):
    pytest.importorskip("onnxruntime")
    import yaml
    from lab import engine, export
    path = experiment(str(tmp_path), gan=1.0, gan_from=0.0, gradient=0.0, ssim=0.0, steps=3)
    with open(path, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    spec |= {"task": task, "name": f"{task} of the paper", "network": {"kind": "encoder-decoder", **network},
             "data": {**spec["data"], "crop": crop, "whole": True}}
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(spec, file)
    run = training.train(path, str(tmp_path / "run"), cache, threads=1, workers=1)
    one = "t2-to-stir" if "outputs" in network else task
    facts = export.export(run, str(tmp_path / "paper.onnx"), task=one)
    assert facts["bytes"] < 1 << 20
    model = engine.Model(str(tmp_path / "paper.onnx"))
    scale = network.get("scale", 1)
    assert (model.task.name, model.grid) == (one, f"{crop // scale}x{crop // scale}")
    result = model(np.random.default_rng(0).random((40, 56)))
    assert result.shape == (40 * scale, 56 * scale) and np.isfinite(result).all()
    if one != task:  # all that were learned together may stay in one file, and each is found there
        export.export(run, str(tmp_path / "all.onnx"))
        assert baselines.paper_models(str(tmp_path))["t2-to-tirm"] == str(tmp_path / "all.onnx")
        others = [engine.Model(str(tmp_path / "all.onnx"), task=t)(np.eye(40)) for t in ("t2-to-t1", "t2-to-stir", "t2-to-tirm")]
        assert np.abs(others[1] - model(np.eye(40))).max() < 0.01
        assert np.abs(others[0] - others[1]).max() > 0.01 and np.abs(others[2] - others[1]).max() > 0.01
        with pytest.raises(ValueError, match="not for t1-to-t2"):
            engine.Model(str(tmp_path / "all.onnx"), task="t1-to-t2")


def test_whole__keeps_the_picture_and_its_level():
    image = np.outer(np.hanning(200), np.hanning(200)).astype(np.float32)
    picked = [dataset.whole(dataset.enlarged([image, 1 - image], 64), np.random.default_rng(k), 64) for k in range(20)]
    assert all(p.shape == (2, 64, 64) for p in picked)
    assert all(p[0] + p[1] == pytest.approx(1.0, abs=1e-3) for p in picked)
    assert np.mean([p[0].mean() for p in picked]) == pytest.approx(image.mean() * (286 / 256) ** 2, rel=0.1)
    assert len({p.tobytes() for p in picked}) > 10


def test_shipped_experiments__name_a_network_that_can_be_built():
    import yaml
    here = os.path.join(os.path.dirname(training.__file__), "experiments")
    for path in sorted(glob.glob(os.path.join(here, "*.yaml"))):
        with open(path, encoding="utf-8") as file:
            spec = yaml.safe_load(file)
        network = networks.build(spec["network"])
        assert spec["task"] in TASKS and sum(p.numel() for p in network.parameters()) * 2 < 8 << 20, path
