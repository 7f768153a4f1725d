"""The CPU engine on whole networks: against onnxruntime, on each instruction set, for any threads and any batch.

Networks are the small ones of scripts/bench_engine_nets.py: every generator of the family, with random weights.
"""

import os
import sys

import enginekit
import numpy as np
import pytest
from onnx import helper

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402

SMALL = ["unet64", "unet64_instance", "encdec64", "resnet2", "edsr_small", "rrdb_small", "srgan_small", "resize_unet_small"]
FLAGS = {"avx512": "avx512dq", "avx2": "avx2", "base": "sse2"}


def isas() -> list[str]:
    with open("/proc/cpuinfo") as f:
        flags = next((line.split() for line in f if line.startswith("flags")), ["sse2"])
    return [isa for isa, flag in FLAGS.items() if flag in flags]


def network(name: str, folder, batch: int = 1):
    path, shape = nets.write(name, folder, batch)
    return path, np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SMALL)
def test_network_agrees_with_onnxruntime(name, isa, tmp_path):
    path, x = network(name, tmp_path)
    want = enginekit.oracle(path, [x])[0]
    got = enginekit.run(path, [x], tmp_path, "cpu", arguments=("--isa", isa, "--threads", "2"))
    assert isa in got.facts["engine"]
    assert np.abs(got.outputs[0] - want).max() <= 1e-5 * max(1, np.abs(want).max())
    assert np.std(want) > 0.01  # a network that has gone flat would agree with anything


@pytest.mark.parametrize("name", SMALL)
def test_low_memory_gives_the_same_within_rounding(name, tmp_path):
    path, x = network(name, tmp_path)
    want = enginekit.oracle(path, [x])[0]
    got = enginekit.run(path, [x], tmp_path, "cpu", arguments=("--low-memory", "--threads", "1")).outputs[0]
    assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SMALL)
def test_bits_do_not_depend_on_threads_batch_or_mode(name, isa, tmp_path):
    path, x = network(name, tmp_path)
    batch_path, _ = network(name, tmp_path, 3)
    others = np.random.default_rng(8).uniform(-1, 1, (2, *x.shape[1:])).astype(np.float32)
    arguments = ("--isa", isa, "--threads")
    want = enginekit.run(path, [x], tmp_path, "cpu", arguments=(*arguments, "1")).outputs[0]
    for threads in ("2", "5"):
        got = enginekit.run(path, [x], tmp_path, "cpu", arguments=(*arguments, threads)).outputs[0]
        assert np.array_equal(want, got), f"{threads} threads"
    for place in range(3):
        batch = np.insert(others, place, x[0], axis=0)
        for more in ((), ("--throughput",), ("--throughput", "--threads", "4")):
            got = enginekit.run(batch_path, [batch], tmp_path, "cpu", arguments=(*arguments, "2", *more)).outputs[0]
            assert np.array_equal(want[0], got[place]), f"image {place} of 3 {more}"


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SMALL)
def test_stacks_give_the_same_bits_as_single_images(name, isa, tmp_path):
    """An image by each thread, the last ones by all of them, or all by all where memory is short."""
    path, x = network(name, tmp_path)
    pair_path, _ = network(name, tmp_path, 2)
    images = np.random.default_rng(9).uniform(-1, 1, (8, *x.shape[1:])).astype(np.float32)
    wants = np.concatenate([enginekit.run(path, [images[i:i + 1]], tmp_path, "cpu", arguments=("--isa", isa, "--threads", "1")).outputs[0]
                            for i in range(len(images))])
    for count, threads, more in ((8, 2, ()), (7, 2, ()), (5, 3, ()), (7, 4, ()), (3, 4, ()), (1, 3, ()), (2, 2, ("--low-memory",))):
        got = enginekit.run(path, [images[:count]], tmp_path, "cpu",
                            arguments=("--isa", isa, "--stack", "1", "--threads", str(threads), *more))
        assert ("an image each" in got.facts["engine"]) is not bool(more)
        if more:  # it may compute other ways
            assert np.abs(got.outputs[0] - wants[:count]).max() <= 1e-5 * max(1, np.abs(wants).max())
        else:
            assert np.array_equal(got.outputs[0], wants[:count]), (count, threads)
    got = enginekit.run(pair_path, [images[:7]], tmp_path, "cpu", arguments=("--isa", isa, "--stack", "2", "--threads", "3"))
    assert got.facts["batch"] == 2
    assert np.array_equal(got.outputs[0], wants[:7])


def test_image_of_a_stack_that_is_not_finite_is_named(tmp_path):
    """Whether its lane is one of many or it is computed by all threads."""
    model = enginekit.make_model(
        [helper.make_node("Conv", ["x", "w"], ["a"], name="fine"), helper.make_node("Exp", ["a"], ["b"], name="large"),
         helper.make_node("Mul", ["b", "b"], ["y"], name="culprit")],
        {"x": ["n", 1, 4, 4]}, ["y"], {"w": np.ones((1, 1, 1, 1), np.float32)})
    for bad in range(5):
        x = np.zeros((5, 1, 4, 4), np.float32)
        x[bad] = 60
        for threads in ("1", "2", "4"):
            arguments = ("--stack", "1", "--threads", threads)
            with pytest.raises(enginekit.Refused, match=f"image {bad + 1} of 5: .*culprit"):
                enginekit.run(model, [x], tmp_path, "cpu", arguments=arguments)
        x[bad] = np.nan
        with pytest.raises(enginekit.Refused, match=f"image {bad + 1} of 5: input 'x' holds NaN"):
            enginekit.run(model, [x], tmp_path, "cpu", arguments=("--stack", "1", "--threads", "2"))


def test_isa_can_be_forced_by_the_environment_and_must_be_known(tmp_path):
    path, x = network("edsr_small", tmp_path)
    got = enginekit.run(path, [x], tmp_path, "cpu", env={"SPINENODE_ISA": "base"})
    assert "base" in got.facts["engine"]
    with pytest.raises(enginekit.Refused, match="avx512, avx2 or base"):
        enginekit.run(path, [x], tmp_path, "cpu", env={"SPINENODE_ISA": "altivec"})


def test_first_layer_that_is_not_finite_is_named(tmp_path):
    x = np.full((1, 1, 4, 4), 60, np.float32)
    model = enginekit.make_model(
        [helper.make_node("Conv", ["x", "w"], ["a"], name="fine"),
         helper.make_node("Exp", ["a"], ["b"], name="large"),
         helper.make_node("Mul", ["b", "b"], ["c"], name="culprit"),
         helper.make_node("Tanh", ["c"], ["d"], name="after"),
         helper.make_node("Sub", ["c", "c"], ["e"], name="later"),
         helper.make_node("Add", ["d", "e"], ["y"], name="last")],
        {"x": [1, 1, 4, 4]}, ["y"], {"w": np.ones((1, 1, 1, 1), np.float32)})
    for arguments in ((), ("--threads", "3")):
        with pytest.raises(enginekit.Refused, match="culprit"):
            enginekit.run(model, [x], tmp_path, "cpu", arguments=arguments)


def test_skip_connections_in_every_order_of_concat(tmp_path):
    """Values that feed several Concats, twice the same one, a prefix, other axes, and a graph output."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (2, 5, 6, 7)).astype(np.float32)
    w = rng.uniform(-1, 1, (4, 5, 3, 3)).astype(np.float32)

    def conv(source, name):
        return helper.make_node("Conv", [source, "w"], [name], pads=[1, 1, 1, 1], name=name)

    def concat(sources, name, axis=1):
        return helper.make_node("Concat", sources, [name], axis=axis, name=name)

    model = enginekit.make_model(
        [conv("x", "a"), conv("x", "b"), concat(["a", "b"], "ab"), helper.make_node("Relu", ["ab"], ["r"]),
         concat(["a", "b", "r", "a"], "abra"), concat(["b", "a"], "ba"), concat(["x", "x"], "xx"),
         concat(["ab", "ba"], "tall", 2), concat(["ab", "ba"], "wide", 3), concat(["a", "b"], "many", 0),
         concat(["abra", "ba", "xx"], "all")],
        {"x": [2, 5, 6, 7]}, ["all", "tall", "wide", "many", "ab", "b"], {"w": w})
    want = enginekit.oracle(model, [x])
    got = enginekit.run(model, [x], tmp_path, "cpu", outputs=6).outputs
    for g, w_ in zip(got, want):
        assert enginekit.difference(g, w_) <= 2e-6


def test_relus_between_skips_and_their_concats(tmp_path):
    """Skips that others read too, before and after; in two Concats; a Concat that not only convolutions read; a graph output."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, (2, 6, 9, 8)).astype(np.float32)
    weights = {f"w{n}": rng.uniform(-0.5, 0.5, (6, n, 3, 3)).astype(np.float32) for n in (6, 12, 18)}
    nodes = []

    def conv(source, name, n=6):
        nodes.append(helper.make_node("Conv", [source, f"w{n}"], [name], pads=[1, 1, 1, 1], name=name))
        return name

    def act(source, kind="Relu", **attributes):
        nodes.append(helper.make_node(kind, [source], [f"{kind}_{source}_{len(nodes)}"], name=f"{kind}{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def concat(name, *sources):
        nodes.append(helper.make_node("Concat", list(sources), [name], axis=1, name=name))
        return name

    skip = act(conv("x", "first"), "LeakyRelu", alpha=0.2)
    raw = conv(skip, "second")
    inner = act(conv(raw, "third"))
    alone = act(conv(skip, "fourth"), "LeakyRelu", alpha=0.2)
    outputs = [conv(concat("both", act(skip), inner), "y0", 12), conv(concat("of a raw one", act(raw), act(skip)), "y1", 12),
               conv(concat("thrice", act(raw), inner, act(skip)), "y2", 18), conv("thrice", "y3", 18),
               act(concat("read by others", act(alone), inner), "Tanh"), conv("read by others", "y4", 12),
               conv(concat("of the input", act("x"), act(raw)), "y5", 12), conv(act(concat("not all", act(raw), skip), "LeakyRelu", alpha=0.5), "y6", 12),
               conv(raw, "y7"), act(raw, "Neg"), concat("an output", act(raw), act(skip)), conv("an output", "y8", 12), "second"]
    model = enginekit.make_model(nodes, {"x": [2, 6, 9, 8]}, outputs, weights)
    want = enginekit.oracle(model, [x])
    for arguments in ((), ("--low-memory",), ("--threads", "3", "--throughput")):
        got = enginekit.run(model, [x], tmp_path, "cpu", outputs=len(outputs), arguments=arguments).outputs
        for name, g, w_ in zip(outputs, got, want):
            assert enginekit.difference(g, w_) <= 1e-5, (name, arguments)


@pytest.mark.skipif(not os.environ.get("SPINENODE_LARGE_TESTS"), reason="minutes: SPINENODE_LARGE_TESTS=1 runs it")
@pytest.mark.parametrize("name", ["unet256", "encdec256", "resnet9", "edsr4", "rrdb23"])
def test_full_size_network_agrees_with_onnxruntime(name, tmp_path):
    path, x = network(name, tmp_path)
    want = enginekit.oracle(path, [x])[0]
    got = enginekit.run(path, [x], tmp_path, "cpu").outputs[0]
    assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())
