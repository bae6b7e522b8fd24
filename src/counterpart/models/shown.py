"""What a view shows of a network's inside: a layer, from its graph or by a hook where it has none, and attention."""

import difflib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..contracts import Attended
from ..errors import UserError
from .auxiliary import outputs_of
from .part_heads import PartFeatures
from .places import Places, places_of

Outputs: TypeAlias = dict[nn.Module, list[Any]]
"""What each module returned during a trace: a node, or a structure of them, for each of its calls."""

Seen: TypeAlias = tuple[Any, Tensor | None, Sequence[Any]]
"""What a pass of the trunk shows: its output (a tensor, ``PartFeatures``, or several tensors), the maps of the shown
layer, and the outputs of ``Shown.beside``."""

LISTED = 12


@dataclass(frozen=True)
class Shown:
    """The layer to show.

    Attributes:
        layer: the name of a module.
        order: the order of axes in this network (see ``places``).
        prefix: the number of its tokens without a place.
        headed: whether a head follows the trunk, so that the trunk's output needs no maps of its own.
        beside: the names of layers whose outputs are shown as they are, in the order in which they run.
    """

    layer: str | None
    order: str
    prefix: int
    headed: bool
    beside: tuple[str, ...] = ()


class Attending(TorchFunctionMode):
    """Record every call of scaled dot-product attention within the block: inputs and output, which the kernel keeps."""

    NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Attended] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``function`` as ever."""
        output = function(*args, **(kwargs or {}))
        if function is F.scaled_dot_product_attention:
            arguments = dict(zip(self.NAMES[: len(args)], args, strict=True)) | (kwargs or {})
            query, key, value = (arguments.pop(name) for name in self.NAMES[:3])
            self.calls.append(Attended(query, key, value, output, arguments))
        return output


def attending_modules(body: nn.Module) -> list[nn.Module]:
    """The modules of a timm network that can attend by a fused kernel."""
    return [module for module in body.modules() if hasattr(module, "fused_attn")]


def expose(graph: fx.GraphModule, outputs: Outputs, body: nn.Module, request: Shown) -> bool:
    """Make a traced trunk return ``Seen``, and return whether the layer to show is not the trunk's output.

    Whatever follows the layer is computed from these maps, so that every gradient passes through them.
    """
    end = next(node for node in graph.graph.nodes if node.op == "output")
    images = next(node for node in graph.graph.nodes if node.op == "placeholder")
    end.args = ((end.args[0], None, tuple(_node_of(layer, outputs, body) for layer in request.beside)),)
    inner = None
    if request.layer is not None:
        node = _node_of(request.layer, outputs, body)
        if node is not end.args[0][0] or not request.headed:
            about = (images, request.order, request.prefix)
            inner = _by_way_of(graph, node, (*about, request.layer), about)
            output, _, beside = end.args[0]
            end.args = ((output, inner, beside),)
    graph.recompile()
    return inner is not None


def watched(
    body: nn.Module, forward: Callable[[Tensor], Tensor | PartFeatures], request: Shown
) -> Callable[[Tensor], Seen]:
    """Do what ``expose`` does for a trunk that cannot be traced, by a hook on ``body`` for the time of a pass."""
    size: list[Tensor] = []
    inner: list[Tensor] = []

    def at_layer(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        assert request.layer is not None
        about = (size[-1], request.order, request.prefix)
        inner.append(maps_at(output, *about, request.layer))
        return go_on(inner[-1], output, *about)

    modules = dict(body.named_modules())
    if request.layer is not None and (request.layer not in modules or not request.layer):
        raise _unknown(request.layer, modules, body)

    def run(images: Tensor) -> Seen:
        layer = None if request.layer is None else modules[request.layer]
        size.append(images)
        try:
            at = nullcontext() if layer is None else layer.register_forward_hook(at_layer)
            with at, outputs_of(body, request.beside) as beside:
                output = forward(images)
            if request.layer is not None and len(inner) != 1:
                raise _called(request.layer, len(inner), body)
            return output, inner[0] if inner else None, beside
        finally:
            size.clear()
            inner.clear()

    return run


def maps_at(output: object, images: Tensor, order: str, prefix: int, layer: str) -> Tensor:
    """Lay the output of ``layer`` out as maps (B, A, h, w) in float32."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    places = _places(output, images, order, prefix) if isinstance(output, Tensor) else None
    if not isinstance(output, Tensor) or places is None or places.grid == (1, 1):
        raise UserError(
            f"layer {layer!r} returns {shape} for images {tuple(images.shape)}: no maps. A class activation map needs "
            "channels at several places, (B, A, h, w), (B, h, w, A) or the tokens of a transformer."
        )
    return places.to_maps(output).float()


def go_on(maps: Tensor, output: Tensor, images: Tensor, order: str, prefix: int) -> Tensor:
    """Turn maps back into what follows the layer. It is a copy, since some layers work in place."""
    places = _places(output, images, order, prefix)
    assert places is not None
    return places.from_maps(maps.to(output.dtype), output).clone()


def _places(output: Tensor, images: Tensor, order: str, prefix: int) -> Places | None:
    return places_of(output.shape, (images.shape[2], images.shape[3]), order, prefix)


def _by_way_of(
    graph: fx.GraphModule, node: fx.Node, there: tuple[Any, ...], back: tuple[Any, ...]
) -> fx.Node:
    """Lead whatever uses ``node`` by way of its maps, ``maps_at`` and ``go_on``; return the node of the maps."""
    with graph.graph.inserting_after(node):
        taken = graph.graph.call_function(maps_at, (node, *there))
    with graph.graph.inserting_after(taken):
        after = graph.graph.call_function(go_on, (taken, node, *back))
    node.replace_all_uses_with(after, delete_user_cb=lambda user: user not in (taken, after))
    return taken


def _node_of(layer: str, outputs: Outputs, body: nn.Module) -> fx.Node:
    modules = dict(body.named_modules())
    names = [name for name, module in modules.items() if name and module in outputs]
    if layer not in modules or not layer:
        raise _unknown(layer, names, body)
    outputs_of_layer = outputs.get(modules[layer], [])
    if len(outputs_of_layer) != 1:
        raise _called(layer, len(outputs_of_layer), body, names)
    if not isinstance(outputs_of_layer[0], fx.Node):
        raise UserError(
            f"layer {layer!r} returns {type(outputs_of_layer[0]).__name__}, not one tensor: it has no maps."
        )
    return outputs_of_layer[0]


def _unknown(layer: str, names: Any, body: nn.Module) -> UserError:
    return UserError(f"{type(body).__name__} has no layer {layer!r}. {_listed(layer, names)}")


def _called(layer: str, times: int, body: nn.Module, names: Any = ()) -> UserError:
    why = f"runs {times} times" if times else "does not run before the head"
    hint = f" {_listed(layer, names)}" if names else ""
    return UserError(f"layer {layer!r} of {type(body).__name__} {why}: it has no map.{hint}")


def _listed(layer: str, names: Any) -> str:
    """List the candidates, the nearest name first."""

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, layer, name).ratio()

    ordered = sorted(filter(None, names), key=likeness, reverse=True)
    more = f", and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return f"It has: {', '.join(ordered[:LISTED])}{more}."
