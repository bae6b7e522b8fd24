"""Small sound ONNX files, written by hand as protobufs, so that fuzzing needs nothing but ``onnxruntime``."""

import struct
from collections.abc import Sequence

FLOAT, INT64 = 1, 7  # types of numbers


def message(**fields: object) -> bytes:
    """A protobuf message; the names of the fields are their numbers: ``n1=7, n5=[b"a", b"b"]``."""
    packed = b""
    for name, value in fields.items():
        for entry in value if isinstance(value, list) else [value]:
            packed += _field(int(name[1:]), entry)
    return packed


def _field(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value %= 2**64
    packed = b""
    while value > 127:
        packed, value = packed + bytes([value & 127 | 128]), value >> 7
    return packed + bytes([value])


def tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    """A constant of float32."""
    return message(n1=list(shape), n2=FLOAT, n8=name, n9=struct.pack(f"<{len(values)}f", *values))


def whole(name: str, values: Sequence[int]) -> bytes:
    """A constant of int64, in one dimension."""
    return message(n1=[len(values)], n2=INT64, n8=name, n9=struct.pack(f"<{len(values)}q", *values))


def elsewhere(name: str, shape: Sequence[int], file: str) -> bytes:
    """A constant of float32 whose values lie in another file."""
    place = [message(n1="location", n2=file), message(n1="offset", n2="0")]
    return message(n1=list(shape), n2=FLOAT, n8=name, n13=place, n14=1)


def node(kind: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    """A node of the graph."""
    return message(n1=list(inputs), n2=output, n4=kind, n5=list(attributes))


def network(nodes: Sequence[bytes], constants: Sequence[bytes], shape: Sequence[int | str]) -> bytes:
    """A file with one input ``x`` of a shape, and the output ``y``."""
    dims = [message(n2=side) if isinstance(side, str) else message(n1=side) for side in shape]
    entrance = message(n1="x", n2=message(n1=message(n1=FLOAT, n2=message(n1=dims))))
    rows = message(n1=[message(n2="b"), message(n2="k")])
    answer = message(n1="y", n2=message(n1=message(n1=FLOAT, n2=rows)))
    graph = message(n1=list(nodes), n2="g", n5=list(constants), n11=entrance, n12=answer)
    return message(n1=8, n7=graph, n8=message(n1="", n2=17))


def linear(shape: Sequence[int | str] = ("b", 1, 2, 2)) -> bytes:
    """A linear layer of three classes."""
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w", "b"], "y")]
    values = [0.1 * n for n in range(12)]
    return network(nodes, [tensor("w", (4, 3), values), tensor("b", (3,), values[:3])], shape)


def convolution() -> bytes:
    """Two filters of a convolution, averaged."""
    sides = message(n1="kernel_shape", n8=[2, 2], n20=INT64)
    nodes = [
        node("Conv", ["x", "w"], "c", sides), node("Relu", ["c"], "r"), node("GlobalAveragePool", ["r"], "p"),
        node("Flatten", ["p"], "y"),
    ]  # fmt: skip
    return network(nodes, [tensor("w", (2, 1, 2, 2), list(range(8)))], ("b", 1, "h", "w"))


def enlarged(times: int) -> bytes:
    """A linear layer whose image is repeated many times first."""
    nodes = [
        node("Tile", ["x", "t"], "big"), node("GlobalAveragePool", ["big"], "p"), node("Flatten", ["p"], "y")
    ]  # fmt: skip
    return network(nodes, [whole("t", [1, 1, times, times])], ("b", 1, 2, 2))


def endless() -> bytes:
    """A loop that never ends."""
    body_out = [
        message(n1=name, n2=message(n1=message(n1=kind, n2=message()))) for name, kind in (("c2", 9), ("v2", FLOAT))
    ]  # fmt: skip
    body_in = [
        message(n1=name, n2=message(n1=message(n1=kind, n2=message())))
        for name, kind in (("i", INT64), ("c", 9), ("v", FLOAT))
    ]
    body = message(
        n1=[node("Identity", ["c"], "c2"), node("Identity", ["v"], "v2")],
        n2="body",
        n11=body_in,
        n12=body_out,
    )
    loop = node("Loop", ["", "go", "f"], "y", message(n1="body", n6=body, n20=5))
    go = message(n2=9, n8="go", n9=b"\1")
    return network([node("Flatten", ["x"], "f"), loop], [go], ("b", 1, 2, 2))


def seeds() -> list[bytes]:
    """Files of a few nodes."""
    return [linear(), linear((2, 1, 2, 2)), convolution(), enlarged(2)]
