"""Loading and saving models."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompiler.errors import ModelError
from qcompiler.ir import io
from qcompiler.ir.render import render


def affine(weight: TensorProto, **options: Any) -> onnx.ModelProto:
    """y = x + weight."""
    shape = [abs(size) for size in weight.dims]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], "add")], "affine",
        [helper.make_tensor_value_info("x", weight.data_type or 1, shape)],
        [helper.make_tensor_value_info("y", weight.data_type or 1, shape)], [weight],
    )
    options = {"opset_imports": [helper.make_opsetid("", 21)], "ir_version": 10} | options
    return helper.make_model(graph, **options)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def external(location: str, offset: str = "0", length: str | None = "80", dims: tuple[int, ...] = (20,)) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    pairs = {"location": location, "offset": offset} | ({"length": length} if length else {})
    for key, value in pairs.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


# -- what comes in goes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_, np.uint16]
)
def test_every_encoding_of_a_weight_survives(tmp_path: Path, dtype: Any, raw: bool, size: int) -> None:
    array = np.random.default_rng(0).integers(0, 2, (2, size)).astype(dtype)
    data = array.tobytes() if raw else (array.view(np.uint16) if dtype == np.float16 else array).ravel()
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = helper.make_tensor("w", kind, array.shape, data if raw else array.ravel().tolist(), raw=raw)
    model = io.load(write(tmp_path / "m.onnx", affine(tensor)))
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), array)
    assert weight.numpy().dtype == array.dtype
    assert weight.tobytes() == array.tobytes()
    io.save(model, tmp_path / "again.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(tmp_path / "again.onnx").graph.initializer[0]), array)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("where", ["inline", "beside"])
def test_packed_weights_survive(tmp_path: Path, bits: int, where: str) -> None:
    kind = {2: ir.DataType.INT2, 4: ir.DataType.INT4}[bits]
    array = np.random.default_rng(0).integers(-2, 2, (200, 501)).astype(kind.numpy())
    model = io.load(write(tmp_path / "m.onnx", affine(numpy_helper.from_array(np.zeros(1, np.float32), "w"))))
    model.graph.initializers["w"].const_value = ir.Tensor(array, kind)
    io.save(model, tmp_path / "p.onnx", external_threshold=0 if where == "beside" else 1 << 30)
    weight = io.load(tmp_path / "p.onnx").graph.initializers["w"].const_value
    assert weight is not None
    assert weight.dtype == kind
    np.testing.assert_array_equal(weight.numpy(), array)


def test_strings_and_metadata_survive(tmp_path: Path, parse: Callable[[str], ir.Model]) -> None:
    model = parse('<ir_version: 10, opset_import: ["" : 21]> m (string[2] x) => (string[2] y)'
                  '<string[2] s = {"a", "ü"}> { y = StringConcat(x, s) }')
    model.metadata_props["b"], model.metadata_props["a"] = "2", "1"
    model.graph[0].outputs[0].metadata_props["k"] = "v"
    model.graph.metadata_props["g"] = "h"
    io.save(model, tmp_path / "m.onnx", external_threshold=0)
    again = io.load(tmp_path / "m.onnx")
    assert render(again) == render(model)
    assert again.metadata_props == {"a": "1", "b": "2"}
    assert again.graph.metadata_props == {"g": "h"}
    assert again.graph[0].outputs[0].metadata_props == {"k": "v"}
    assert not (tmp_path / "m.onnx.data").exists() or (tmp_path / "m.onnx.data").stat().st_size == 0


def test_subgraph_weights_and_constant_attributes(tmp_path: Path) -> None:
    big = np.arange(9000, dtype=np.float32)
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(big, "k")),
         helper.make_node("Add", ["w", "k"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", 1, [9000])], [numpy_helper.from_array(big * 2, "w")],
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [],
                              [helper.make_tensor_value_info("e", 1, [9000])])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], "main",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", 1, [9000])],
        [helper.make_tensor_value_info("y", 1, [9000])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = io.load(write(tmp_path / "m.onnx", proto))
    io.save(model, tmp_path / "n.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "n.onnx"), full_check=True)
    assert render(io.load(tmp_path / "n.onnx")) == render(model)
    branch = model.graph[0].attributes["then_branch"].as_graph()
    np.testing.assert_array_equal(branch[0].attributes["value"].as_tensor().numpy(), big)


def test_identical_models_give_identical_bytes(small_cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = io.save(io.load(small_cnn_path), tmp_path / "a" / "m.onnx", external_threshold=0)
    second = io.save(io.load(first[0]), tmp_path / "m.onnx", external_threshold=0)
    assert [path.name for path in first] == ["m.onnx", "m.onnx.data"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert str(tmp_path).encode() not in first[0].read_bytes()


def test_saving_over_the_file_it_came_from(small_cnn_path: Path) -> None:
    model = io.load(small_cnn_path)
    before = render(model)
    for threshold in (0, 1 << 30, 0, 0):
        io.save(model, small_cnn_path, external_threshold=threshold)
        assert render(io.load(small_cnn_path)) == before
    assert render(model) == before


def test_source_is_remembered(small_cnn_path: Path) -> None:
    assert io.load(small_cnn_path).meta[io.SOURCE] == small_cnn_path


def test_release_keeps_arrays_valid(tmp_path: Path) -> None:
    array = np.arange(100_000, dtype=np.float32)
    model = io.load(write(tmp_path / "m.onnx", affine(numpy_helper.from_array(array, "w"))))
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    view = tensor.numpy()
    io.release(model)
    np.testing.assert_array_equal(view, array)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


# -- bad input ---------------------------------------------------------------------------------------------------

WEIGHT = numpy_helper.from_array(np.arange(20, dtype=np.float32), "w")


def cyclic() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["x", "c"], ["a"], "one"), helper.make_node("Neg", ["a"], ["b"], "two"),
             helper.make_node("Exp", ["b"], ["c"], "three"), helper.make_node("Neg", ["c"], ["y"], "after")]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [2])], [info("y", 1, [2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def dangling() -> onnx.ModelProto:
    model = cyclic()
    model.graph.node[0].input[1] = "nowhere"
    return model


def unproduced_output() -> onnx.ModelProto:
    model = affine(WEIGHT)
    model.graph.output[0].name = "nowhere"
    return model


def redeclared() -> onnx.ModelProto:
    model = affine(WEIGHT)
    model.graph.node.append(model.graph.node[0])
    return model


def changed(**fields: Any) -> TensorProto:
    tensor = TensorProto()
    tensor.CopyFrom(WEIGHT)
    dims = fields.pop("dims", None)
    if dims is not None:
        del tensor.dims[:]
        tensor.dims.extend(dims)
    for name, value in fields.items():
        setattr(tensor, name, value)
    return tensor


BAD_MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "cycle": (cyclic, r"contains a cycle: '(one|two|three)'"),
    "dangling": (dangling, r"node 'one' \(Add\) reads 'nowhere', which nothing produces"),
    "no producer of an output": (unproduced_output, "graph output 'nowhere' is produced by nothing"),
    "two producers": (redeclared, "redeclared"),
    "opset too new": (lambda: affine(WEIGHT, opset_imports=[helper.make_opsetid("", 27)]), "opset 27.*7 to 26"),
    "opset too old": (lambda: affine(WEIGHT, opset_imports=[helper.make_opsetid("", 6)]), "opset 6.*7 to 26"),
    "IR too new": (lambda: affine(WEIGHT, ir_version=14), "IR version 14.*3 to 13"),
    "no opset": (lambda: affine(WEIGHT, opset_imports=[]), "no operator set|opset"),
    "data missing": (lambda: affine(external("absent.bin")), "'absent.bin' is missing"),
    "data is a folder": (lambda: affine(external("folder")), "'folder' is not a regular file"),
    "data outside": (lambda: affine(external("../secret.bin")), "outside the folder"),
    "data absolute": (lambda: affine(external("/etc/passwd")), "outside the folder"),
    "data behind a link": (lambda: affine(external("link.bin")), "outside the folder"),
    "data behind a linked folder": (lambda: affine(external("linked/secret.bin")), "outside the folder"),
    "data without location": (lambda: affine(external("")), "outside the folder"),
    "data too short": (lambda: affine(external("short.bin")), "holds 40"),
    "offset beyond": (lambda: affine(external("good.bin", offset="60")), "bytes 60 to 140"),
    "offset negative": (lambda: affine(external("good.bin", offset="-4")), "(?i)offset.*-4"),
    "offset no number": (lambda: affine(external("good.bin", offset="four")), "four"),
    "length too small": (lambda: affine(external("good.bin", length="40")), "needs 80 bytes, 40 are given"),
    "shape enormous, beside": (lambda: affine(external("good.bin", length=None, dims=(1 << 40,))), "holds 80"),
    "shape enormous, inline": (lambda: affine(changed(dims=[1 << 40])), "needs .* bytes, 80 are given"),
    "shape without data": (lambda: affine(changed(dims=[1 << 40], raw_data=b"")), "needs .* bytes, 0 are given"),
    "shape negative": (lambda: affine(changed(dims=[-20])), "impossible dimension"),
    "no element type": (lambda: affine(changed(data_type=0)), "no element type"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_refused_with_words(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(80))
    (folder / "good.bin").write_bytes(bytes(80))
    (folder / "short.bin").write_bytes(bytes(40))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    make, words = BAD_MODELS[case]
    path = write(folder / "m.onnx", make())
    with pytest.raises(ModelError, match=f"(?s){words}") as caught:
        io.load(path)
    assert caught.value.exit_code == 1
    assert "m.onnx" in str(caught.value)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(np.arange(20, dtype=np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to("real.bin")
    model = io.load(write(tmp_path / "m.onnx", affine(external("link.bin"))))
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.numpy()[19] == 19


def test_an_enormous_float_list_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40], float_data=[1.0, 2.0])
    with pytest.raises(ModelError, match="no such data"):
        io.load(write(tmp_path / "m.onnx", affine(tensor)))


def test_truncated_anywhere(tmp_path: Path) -> None:
    """Every prefix of a model is refused, never read as something else and never a traceback."""
    content = affine(numpy_helper.from_array(np.arange(8000, dtype=np.float32), "w")).SerializeToString()
    path = tmp_path / "m.onnx"
    for length in (*range(1, 40), *range(40, len(content), 997), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            io.load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="truncated"):
        io.load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{}", bytes(64), b"\xff" * 64, b"PK\x03\x04aa"],
)
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"not an ONNX model|truncated"):
        io.load(tmp_path / "m.onnx")


def test_random_damage_never_escapes_as_anything_else(tmp_path: Path) -> None:
    content = bytearray(affine(numpy_helper.from_array(np.arange(9000, dtype=np.float32), "w")).SerializeToString())
    path = tmp_path / "m.onnx"
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        places = np.concatenate([random.integers(0, 60, 2), random.integers(len(content) - 120, len(content), 2)])
        for place in places:
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            io.load(path)
        except ModelError:
            continue


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        io.load(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        io.load(tmp_path)
    with zipfile.ZipFile(tmp_path / "z.onnx", "w") as archive:
        archive.writestr("data.pkl", "x")
    with pytest.raises(ModelError, match="not an ONNX model"):
        io.load(tmp_path / "z.onnx")


# -- memory ----------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
from qcompiler.ir import io
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = io.load(sys.argv[1])
for value in model.graph.initializers.values():
    value.const_value.numpy().max()
io.save(model, sys.argv[2], external_threshold=int(sys.argv[3]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)
"""


@pytest.mark.parametrize("threshold", [0, 1 << 40])
def test_memory_does_not_grow_with_the_weights(tmp_path: Path, threshold: int) -> None:
    """400 MB of weights in 16 tensors, looked at and written, inside the protobuf or beside: far below one copy."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="weights"), ir_version=10)
    block = np.random.default_rng(0).standard_normal(25 << 18).astype(np.float32)
    for index in range(16):
        name = f"w{index}"
        model.graph.register_initializer(ir.Value(name=name, const_value=ir.Tensor(block + index, name=name)))
    io.save(model, tmp_path / "m.onnx", external_threshold=threshold)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "m.onnx"), str(tmp_path / "n.onnx"), str(threshold)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 260, f"{grown} MB"
