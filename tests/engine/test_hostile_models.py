"""Models that were made to harm, on disk: refused in < 100 ms and < 50 MB with a reason that names the place.

Time and memory are those of the whole process (opcheck); the time is that on a CPU, which other programs do not lengthen. Under
a sanitizer neither is judged. Byte-level cases are in tests/unit/test_model_onnx.c.
"""

import json
import os
import subprocess
import time

import enginekit
import numpy as np
import onnx
import pytest
from enginekit import make_model
from onnx import TensorProto, helper, numpy_helper

SANITIZED = b"__asan_init" in enginekit.OPCHECK.read_bytes() if enginekit.OPCHECK.exists() else False
F = np.float32
N = helper.make_node


def refuse(path, shape: str = "1x2x4x4", engine: str = "ref") -> tuple[str, float, float]:
    """Runs opcheck on it: the reason, seconds and peak MB."""
    start = time.monotonic()
    process = subprocess.Popen([enginekit.OPCHECK, path, "--engine", engine, "--shape", shape], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    reason = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1, f"exit {process.returncode}: {reason}"
    reason, peak = reason.rsplit("peak_mb", 1)
    return reason.strip(), min(time.monotonic() - start, usage.ru_utime + usage.ru_stime), float(peak)


def assert_refused(path, *words: str, **how: str) -> None:
    reason, seconds, megabytes = refuse(path, **how)
    for word in words:
        assert word in reason, reason
    if not SANITIZED:
        assert seconds < 0.1, f"{seconds} s: {reason}"
        assert megabytes < 50, f"{megabytes} MB: {reason}"


def relu(**more) -> onnx.ModelProto:
    return make_model([N("Relu", ["x"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"], **more)


def save(tmp_path, model) -> object:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def varint(v: int) -> bytes:
    return bytes([v]) if v < 0x80 else bytes([v & 0x7F | 0x80]) + varint(v >> 7)


def head(number: int, length: int) -> bytes:
    return varint(number << 3 | 2) + varint(length)


def field(number: int, payload: bytes) -> bytes:
    return head(number, len(payload)) + payload


def save_with_holes(tmp_path, model: onnx.ModelProto, tensors: dict) -> object:
    """Adds tensors of zeros that take no room on disk. name → dims, data type, the field of the elements and its bytes."""
    parts = []
    for name, (dims, kind, number, length) in tensors.items():
        start = field(8, name.encode()) + b"\x10" + varint(kind) + b"".join(b"\x08" + varint(d) for d in dims) + head(number, length)
        parts.append((head(5, len(start) + length) + start, length))
    graph = model.graph.SerializeToString()
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.ClearField("graph")
    path = tmp_path / "model.onnx"
    with open(path, "wb") as f:
        f.write(bare.SerializeToString() + head(7, len(graph) + sum(len(start) + length for start, length in parts)) + graph)
        for start, length in parts:
            f.write(start)
            f.seek(length, os.SEEK_CUR)
        f.truncate(f.tell())
    return path


def test_what_is_no_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    assert_refused(path, "is empty")
    path.write_bytes(os.urandom(1 << 16))
    assert_refused(path, "model.onnx")
    path.write_text("this is text, not a network\n" * 100)
    assert_refused(path, "model.onnx")
    assert_refused(tmp_path, "not a regular file")
    assert_refused(tmp_path / "missing.onnx", "missing.onnx", "No such file")


def test_a_fifo_in_place_of_the_model(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    assert_refused(tmp_path / "model.onnx", "not a regular file")


def test_a_large_model_that_was_cut(tmp_path):
    data = make_model([N("Conv", ["x", "w"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"], {"w": np.ones((400, 400, 3, 3), F)}).SerializeToString()
    assert_refused(save(tmp_path, data[:len(data) // 2]), "cut")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_never_crash(seed, tmp_path):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (2, 2, 3, 3)).astype(F)
    model = make_model([N("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], name="c"), N("Shape", ["a"], ["s"]), N("Reshape", ["a", "s"], ["b"]),
                        N("Resize", ["b", "", "k"], ["y"], mode="linear")], {"x": ["n", 2, 4, 4]}, ["y"], {"w": w, "k": F([1, 1, 2, 2])})
    data = bytearray(model.SerializeToString())
    for _ in range(3):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    try:
        enginekit.run(model_path := save(tmp_path, bytes(data)), [np.zeros((1, 2, 4, 4), F)], tmp_path)
        assert model_path.exists()
    except enginekit.Refused as e:
        assert len(str(e).split("model.onnx")[-1]) > 20  # a reason, not only the file


def test_nested_ten_thousand_deep(tmp_path):
    attribute = b""
    for _ in range(10000):  # attribute → graph → node → attribute …
        attribute = field(5, field(1, b"body") + field(6, field(1, field(4, b"If") + attribute)))[:1 << 20]
    graph = field(1, field(2, b"y") + field(4, b"If") + attribute)
    assert_refused(save(tmp_path, b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")), "If")


def test_a_million_nodes(tmp_path):
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu")) * 1_000_000
    assert_refused(save(tmp_path, b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")), "more than 20000 nodes")


def test_a_constant_made_of_nothing_that_is_huge(tmp_path):
    model = make_model([N("ConstantOfShape", ["s"], ["c"], name="bomb"), N("Add", ["x", "c"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"],
                       {"s": np.int64([2048, 2048, 2048])})
    assert_refused(save(tmp_path, model), "bomb", "too large")


@pytest.mark.parametrize("dims", [(0, 1 << 30, 1 << 30, 1 << 30), (1 << 30, 0, 1 << 30, 1 << 30), (1 << 30, 1 << 30, 1 << 30, 0)])
def test_an_empty_constant_of_huge_sides(dims, tmp_path):
    huge = onnx.TensorProto(dims=dims, data_type=TensorProto.FLOAT, name="huge")
    model = make_model([N("Min", ["x", "huge"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"])
    model.graph.initializer.append(huge)
    assert_refused(save(tmp_path, model), "huge", "elements")


def test_constants_that_double_forty_times(tmp_path):
    nodes = [N("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0, name=f"double{i}") for i in range(40)]
    model = make_model([*nodes, N("Add", ["x", "c40"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"], {"c0": np.ones(1, F)})
    assert_refused(save(tmp_path, model), "double", "too large")


def test_activations_larger_than_any_memory(tmp_path):
    model = make_model([N("Resize", ["x", "", "k"], ["y"], name="grow", mode="nearest")], {"x": ["n", 2, 4, 4]}, ["y"], {"k": F([1, 1, 60000, 60000])})
    assert_refused(save(tmp_path, model), "grow", "more than")
    pads = make_model([N("Pad", ["x", "p"], ["y"], name="grow")], {"x": ["n", 2, 4, 4]}, ["y"], {"p": np.int64([0, 0, 0, 0, 0, 0, 1 << 62, 0])})
    assert_refused(save(tmp_path, pads), "grow")


@pytest.mark.parametrize("attributes, word", [
    (dict(strides=[0, 1]), "strides"), (dict(strides=[-1, 1]), "strides"), (dict(dilations=[1, 0]), "dilations"), (dict(pads=[-1, 0, 0, 0]), "pads"),
    (dict(pads=[1 << 40, 0, 0, 0]), "pads"), (dict(group=0), "group"), (dict(group=3), "groups"), (dict(kernel_shape=[2, 3]), "weights"),
    (dict(kernel_shape=[3]), "two spatial"), (dict(dilations=[1 << 19, 1 << 19]), "too small"), (dict(auto_pad="SOMETIMES"), "auto_pad"),
])
def test_attributes_of_a_convolution_out_of_bounds(attributes, word, tmp_path):
    model = make_model([N("Conv", ["x", "w"], ["y"], name="layer", **attributes)], {"x": ["n", 2, 4, 4]}, ["y"], {"w": np.ones((2, 2, 3, 3), F)})
    assert_refused(save(tmp_path, model), "node 'layer' (Conv)", word)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad, tmp_path):
    w = np.ones((2, 2, 3, 3), F)
    w[1, 0, 2, 2] = bad
    assert_refused(save(tmp_path, make_model([N("Conv", ["x", "w"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"], {"w": w})), "'w'", "NaN")


def test_mistyped_operands(tmp_path):
    for nodes, constants, word in (
        ([N("Conv", ["x", "w"], ["y"], name="a")], {"w": np.ones((2, 2, 3, 3), np.int64)}, "weights"),
        ([N("Reshape", ["x", "s"], ["y"], name="a")], {"s": F([1, 32])}, "not integers"),
        ([N("Add", ["x", "s"], ["y"], name="a")], {"s": np.int64([1])}, "integers"),
        ([N("Reshape", ["x", "s"], ["y"], name="a")], {"s": np.int64([5, 5])}, "cannot become"),
        ([N("Gather", ["x", "s"], ["y"], name="a", axis=1)], {"s": np.int64([7])}, "index 7"),
        ([N("Cast", ["x"], ["i"], to=TensorProto.INT64), N("Reshape", ["x", "i"], ["y"])], {}, "depends on the data"),
    ):
        assert_refused(save(tmp_path, make_model(nodes, {"x": ["n", 2, 4, 4]}, ["y"], constants)), word)


# --- external data ---------------------------------------------------------------------------------------------------


def external(location: str, length: int = 8, offset: int = 0) -> onnx.ModelProto:
    model = make_model([N("Add", ["x", "w"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"])
    t = model.graph.initializer.add()
    t.name, t.data_type, t.data_location = "w", TensorProto.FLOAT, TensorProto.EXTERNAL
    t.dims.extend([2, 1, 1])
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = t.external_data.add()
        entry.key, entry.value = key, text
    return model


def test_external_data_beside_the_model_is_read(engine, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.bin").write_bytes(b"head" + F([1, 2]).tobytes())
    x = np.zeros((1, 2, 4, 4), F)
    got = enginekit.run(external("sub/weights.bin", offset=4), [x], tmp_path, engine).outputs[0]
    assert (got[0, 0] == 1).all() and (got[0, 1] == 2).all()


def test_external_data_outside_the_folder(tmp_path):
    outside = tmp_path / "secret.bin"
    outside.write_bytes(F([1, 2]).tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo.bin")
    (folder / "short.bin").write_bytes(b"1234")
    for location, word in ((str(outside), "outside"), ("../secret.bin", "outside"), ("link.bin", "link"), ("up/secret.bin", "link"), ("fifo.bin", "regular"),
                           ("/dev/zero", "outside"), (".", "regular"), ("missing.bin", "No such file"), ("short.bin", "ends at byte 8"), ("", "file name"),
                           ("sub/../short.bin", "'..'"), ("short.bin/..", "'..'")):
        assert_refused(save(folder, external(location)), "'w'", word)
    (folder / "good.bin").write_bytes(F([1, 2]).tobytes())
    assert_refused(save(folder, external("good.bin", offset=1 << 59)), "'w'", "ends at byte")
    assert_refused(save(folder, external("good.bin", length=12)), "'w'", "needs 8")
    many = external("good.bin")
    many.graph.initializer[0].external_data[1].value = "9" * 30
    assert_refused(save(folder, many), "offset")


def test_other_things_we_do_not_run(tmp_path):
    model = relu()
    model.graph.sparse_initializer.add()
    assert_refused(save(tmp_path, model), "sparse")
    model = relu()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    assert_refused(save(tmp_path, model), "graph input 'x'", "integers")
    model = relu()
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "text"))
    assert_refused(save(tmp_path, model), "'text'", "string")
    model = relu()
    model.opset_import[0].version = 30
    assert_refused(save(tmp_path, model), "opset 30", "export it again")
    model = relu()
    model.graph.output[0].name = "z"
    assert_refused(save(tmp_path, model), "'z'", "no node")


@pytest.mark.parametrize("elements", [9, 4], ids=["raw_data", "float_data"])
def test_a_model_of_hundreds_of_megabytes_is_opened_at_once(elements, tmp_path):
    """Its weights are neither read nor copied before they are packed. The file is mostly a hole."""
    count = 56_000_000
    path = save_with_holes(tmp_path, relu(), {"w": ([count], TensorProto.FLOAT, elements, count * 4)})
    assert path.stat().st_size > 200 << 20
    best = 1e9
    for _ in range(5):
        done = subprocess.run([enginekit.OPCHECK, path, "--engine", "ref", "--shape", "1x2x4x4"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout.splitlines()[-1])
        best = min(best, facts["open_ms"])
        assert SANITIZED or facts["peak_mb"] < 20
    assert SANITIZED or best < 5


def test_a_weight_that_is_not_finite_after_all_others(engine, tmp_path):
    """Refused before the others are packed: 100 MB of them."""
    names = [f"w{i}" for i in range(11)]
    nodes = [N("Conv", [f"a{i}", w], [f"a{i + 1}"], pads=[1] * 4) for i, w in enumerate(names)]
    model = make_model(nodes, {"a0": ["n", 512, 8, 8]}, ["a11"])
    path = save_with_holes(tmp_path, model, {w: ([512, 512, 3, 3], TensorProto.FLOAT, 9, 512 * 512 * 9 * 4) for w in names})
    with open(path, "r+b") as f:
        f.seek(-4, os.SEEK_END)
        f.write(F(np.nan).tobytes())
    path.read_bytes()  # a disk would take its own time
    assert_refused(path, "'w10'", "NaN", shape="1x512x8x8", engine=engine)


def test_numbers_that_are_not_raw_data_in_masses(tmp_path):
    bad = make_model([N("Nope", ["x"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"])
    count = 1 << 24
    assert_refused(save_with_holes(tmp_path, bad, {f"w{i}": ([count], TensorProto.INT64, 7, count) for i in range(20)}), "32 MiB", "byte")
    count = 1 << 20
    assert_refused(save_with_holes(tmp_path, bad, {f"w{i}": ([count], TensorProto.INT64, 7, count) for i in range(8)}), "tensor 'w2'", "16 MiB")
    assert_refused(save_with_holes(tmp_path, bad, {"w": ([count + 1], TensorProto.INT64, 7, count)}), "tensor 'w' has 1048576 elements")


def test_metadata_in_masses(tmp_path):
    model = relu(metadata={"spinenode.gate": "x" * (1 << 20)})
    enginekit.run(save(tmp_path, model), [np.zeros((1, 2, 4, 4), F)], tmp_path)
    assert_refused(save(tmp_path, relu(metadata={"spinenode.gate": "x" * (1 << 20) + "x"})), "metadata 'spinenode.gate'", "1048576")
    assert_refused(save(tmp_path, relu(metadata={f"key{i}": "x" * (1 << 20) for i in range(4)})), "metadata 'key3'", "4194304")


def test_functions_in_place_of_operators(tmp_path):
    model = relu()
    function = model.functions.add()
    function.name, function.domain = "Relu", "mine"
    enginekit.run(save(tmp_path, model), [np.zeros((1, 2, 4, 4), F)], tmp_path)
    function.domain = ""
    assert_refused(save(tmp_path, model), "function 'Relu'")


def test_outputs_that_are_not_what_they_are_declared_to_be(tmp_path):
    for kind, shape, word in ((TensorProto.FLOAT, [7, 7], "7x7"), (TensorProto.FLOAT, ["n", 2, 4, 5], "?x2x4x5"), (TensorProto.INT64, None, "integers")):
        model = relu()
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, shape))
        assert_refused(save(tmp_path, model), "graph output 'y'", word)
    model = relu()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "rows", 4]))
    enginekit.run(save(tmp_path, model), [np.zeros((1, 2, 4, 4), F)], tmp_path)


def test_reasons_name_inputs_and_tensors(tmp_path):
    model = relu()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -5
    assert_refused(save(tmp_path, model), "graph input 'x'", "negative")
    model = make_model([N("Sum", ["x", *[f"w{i}" for i in range(65)]], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"])
    for i in range(65):
        (tmp_path / f"{i}.bin").write_bytes(F([1, 2]).tobytes())
        t = model.graph.initializer.add()
        t.CopyFrom(external(f"{i}.bin").graph.initializer[0])
        t.name = f"w{i}"
    assert_refused(save(tmp_path, model), "'w64'", "64 files")


# --- work without end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("count_pads", [0, 1])
def test_windows_far_larger_than_the_input(kind, count_pads, engine, tmp_path):
    """Only what they meet is looked at: one row and the other three."""
    side = 1 << 20
    pads = {} if kind == "MaxPool" else {"count_include_pad": count_pads}
    model = make_model([N(kind, ["x"], ["y"], kernel_shape=[side] * 2, pads=[side - 1] * 4, strides=[side] * 2, **pads)], {"x": ["n", 2, 4, 4]}, ["y"])
    x = np.random.default_rng(0).uniform(-1, 1, (1, 2, 4, 4)).astype(F)
    got = enginekit.run(model, [x], tmp_path, engine, timeout=60).outputs[0]
    parts = [slice(0, 1), slice(1, 4)]
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            met = x[:, :, rows, columns]
            want = met.max((2, 3)) if kind == "MaxPool" else met.sum((2, 3)) / 2.0**40 if count_pads else met.mean((2, 3))
            assert np.allclose(got[:, :, i, j], want, rtol=1e-5, atol=0)


def test_poolings_that_would_take_hours(engine, tmp_path):
    model = make_model([N("AveragePool", ["x"], ["y"], name="blur", kernel_shape=[4096] * 2, pads=[4095] * 4)], {"x": ["n", 2, "h", "w"]}, ["y"])
    assert_refused(save(tmp_path, model), "node 'blur' (AveragePool)", "17179869184 elements", shape="1x2x256x256", engine=engine)
    enginekit.run(model, [np.ones((1, 2, 4, 4), F)], tmp_path, engine, timeout=60)


def test_convolutions_that_would_take_hours(tmp_path):
    """The weights, too, are made of a few bytes."""
    nodes = [N("Resize", ["x", "", "k"], ["a"], mode="nearest"), N("ConstantOfShape", ["s"], ["w"]), N("Conv", ["a", "w"], ["y"], name="long", pads=[180] * 4)]
    model = make_model(nodes, {"x": ["n", 2, 4, 4]}, ["y"], {"k": F([1, 1, 5000, 5000]), "s": np.int64([1, 2, 361, 361])})
    assert_refused(save(tmp_path, model), "node 'long' (Conv)", "70368744177664 multiply-accumulates")
    nodes = [N("ConstantOfShape", ["s"], ["w"]), N("Conv", ["w", "w"], ["c"], name="folded", pads=[255] * 4), N("ReduceMean", ["c"], ["d"], keepdims=0)]
    model = make_model([*nodes, N("Add", ["x", "d"], ["y"])], {"x": ["n", 2, 4, 4]}, ["y"], {"s": np.int64([1, 1, 511, 511])})
    assert_refused(save(tmp_path, model), "node 'folded' (Conv)", "multiply-accumulates for its constants")
    model.graph.node[1].CopyFrom(N("MaxPool", ["w"], ["c"], name="folded", kernel_shape=[511] * 2, pads=[255] * 4))
    assert_refused(save(tmp_path, model), "node 'folded' (MaxPool)", "windows of constants")


def concats(count: int, inputs: int) -> onnx.ModelProto:
    """Activations of Concats of one value many times over."""
    nodes = []
    for i in range(count):
        nodes += [N("Concat", ["x"] * inputs, [f"c{i}"], axis=1), N("Relu", [f"c{i}"], [f"r{i}"]), N("ReduceMean", [f"r{i}"], [f"m{i}"], axes=[1])]
    return make_model([*nodes, N("Sum", [f"m{i}" for i in range(count)], ["y"])], {"x": [1, 1, 1, 1]}, ["y"], opset=13)


def test_activations_of_endless_concats(tmp_path):
    """They are not moved to every input."""
    assert_refused(save(tmp_path, concats(100, 1000)), "(Concat)", "40000 steps", shape="1x1x1x1", engine="cpu")
    assert_refused(save(tmp_path, concats(300, 4000)), "(Concat)", "262144 inputs and outputs", shape="1x1x1x1", engine="cpu")


def test_slopes_of_external_data_are_read_in_pieces(tmp_path):
    model = make_model([N("PRelu", ["x", "w"], ["y"])], {"x": [1, 16, 512, 512]}, ["y"])
    model.graph.initializer.append(external("slope.bin", 4 << 22).graph.initializer[0])
    model.graph.initializer[0].dims[:] = [16, 512, 512]
    (tmp_path / "slope.bin").touch()
    os.truncate(tmp_path / "slope.bin", 4 << 22)
    x = np.full((1, 16, 512, 512), -1, F)
    ran = enginekit.run(model, [x], tmp_path, "cpu")
    assert (ran.outputs[0] == 0).all()
    assert SANITIZED or ran.facts["compile_ms"] < 2000  # one by one: 40 s
    with open(tmp_path / "slope.bin", "r+b") as f:
        f.seek(-4, os.SEEK_END)
        f.write(F(0.5).tobytes())
    y = enginekit.run(model, [x], tmp_path, "cpu").outputs[0].ravel()
    assert (y[:-1] == 0).all() and y[-1] == -0.5
