"""A frozen, fast copy of a model for attacks: batch norm folded into convolutions, reduced precision, compiled.

The trunk is everything before the head. The head runs in float32 whatever the precision, so that logits, maps and
gradients keep their resolution. A model that such a copy would not be faithful to has a view of a plainer form, which
``decide_form`` finds.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import devices
from ..contracts import Attended, Attention, PartModel, Probe
from ..errors import UserError
from ..seeding import derive
from .auxiliary import AuxiliaryClassifier
from .bare_copies import bare_copy, set_layout, unwrapped
from .borrowed import borrowed
from .dilation import fill_holes
from .folding import Fold, copy_into, fold, refold, state_of, trace
from .forms import FORMS, Form, faithful_form, first_line, has_hooks, is_own, sentence
from .normalize import ImageClassifier
from .part_heads import PartFeatures
from .places import Places, places_of
from .shown import Attending, Seen, Shown, attending_modules, expose, watched

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "tf32": torch.float32}

_log = logging.getLogger(__name__)


class InferenceView:
    """A view of a model as it is in eval mode. Satisfies ``contracts.View``.

    The model's mode, gradients and hooks are left alone, and no storage is shared with it, unless the form is
    ``original``: then every pass is one of the model itself, whose hooks see it, and whose modes and gradients are put
    back after it. Gradients reach the images only.

    Args:
        model: an ``ImageClassifier``; of any other module the view gives logits, but features of a ``layer`` only.
        precision: "float32", or "bf16" for everything before the head. "tf32" is float32 for whoever searches inside of
            ``devices.searching_in``.
        compile: run the trunk through ``torch.compile``.
        layer: the module, by its name in the network, whose output probes show as ``features``. By default what
            enters the head.
        attention: probes show the attention of every block, of timm's networks. Their passes are never compiled.
        form: what the view makes of the model, one of ``forms.FORMS``. None: ``fast`` for the project's own networks;
            any other model is held against its view at the first pass, on the images of that pass (``decide_form``).
            What has to be repeated bit for bit decides once and names the form from then on.

    Attributes:
        precision: likewise.
        form: likewise; "fast" as long as it is not decided.
        folded: whether the trunk was traced, and so its batch norms folded.
        reason: why not.
        attends: whether the network has attention that could be shown.

    Raises:
        UserError: no such layer, or no attention. A layer without maps is refused by the first probe.
        ValueError: a model that no copy of the named form can be made of.
    """

    def __init__(
        self,
        model: ImageClassifier | nn.Module,
        *,
        precision: str = "float32",
        compile: bool = False,
        layer: str | None = None,
        attention: bool = False,
        form: Form | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        if form not in (None, *FORMS):
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        self._given, self._dtype, self.precision = model, PRECISIONS[precision], precision
        self._compile, self._layer, self._attention = compile, layer, attention
        self._undecided = form is None and not is_own(model)
        try:
            self._build(form or "fast")
        except UserError:
            raise
        except Exception as error:  # a user's module may be of a kind that no copy can be made of
            if not self._undecided:
                raise
            self._fall_back("original", sentence("original", [f"fails: {first_line(error)}"]))

    def _build(self, form: Form) -> None:
        """Make all that passes are made with."""
        model, layer, attention = self._given, self._layer, self._attention
        copied = form != "original"
        self.form: Form = form
        self._model = unwrapped(model) if copied else model
        self._copy = bare_copy(self._model).eval().requires_grad_(False) if copied else model
        self._classifier = self._copy if isinstance(self._copy, ImageClassifier) else None
        if not copied and not _is_two_halves(model):
            self._classifier = None
        self._head: _Head | None = None  # decided at the first probe, which knows the shape of features

        body = self._copy if self._classifier is None else self._classifier.backbone
        assert isinstance(body, nn.Module)
        order, prefix = getattr(body, "output_fmt", "NCHW"), getattr(body, "num_prefix_tokens", 0)
        self._order, self._prefix = str(order), int(prefix)
        attending = attending_modules(body)
        self.attends = bool(attending) and self._classifier is not None and not _is_read_from_parts(model)
        if attention and not self.attends:
            raise UserError(
                f"{type(body).__name__} has no attention to draw a map from: use grad-cam, xgrad-cam or layer-cam."
            )
        self._attending = attending if attention else []
        # Whatever timm was told: only the fused kernel is seen. The model itself is told so for each pass.
        for module in self._attending if copied else ():
            module.fused_attn = True  # type: ignore[assignment]  # a module's attributes are typed as tensors
        headed = self._classifier is not None
        request = Shown(layer, self._order, self._prefix, headed, _layers_of_heads(self._classifier))
        self._inner = layer is not None

        trunk: Callable[[Tensor], Seen]
        self._folds: list[Fold] = []
        self._layout = devices.memory_format(self._copy) if form == "fast" else torch.contiguous_format
        self.reason: str | None = None if form in ("fast", "contiguous") else f"the form {form} was asked for"
        if self.reason is None:
            try:
                graph, outputs = trace(self._copy)
            except Exception as error:  # tracing runs the model's own code on stand-ins: anything may happen
                self.reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                _log.warning(
                    "%s is used unfolded, since it cannot be traced: %s", type(model).__name__, self.reason
                )
        if self.reason is None:
            self._inner = expose(graph, outputs, body, request)
            trunk = graph
            self._folds = fold(graph, self._copy)
            fill_holes(self._copy)
            set_layout(self._copy, graph, self._dtype, self._layout)
        else:
            forward = self._classifier.backbone.forward_features if self._classifier else self._copy
            trunk = watched(body, forward, request)
            if copied:
                set_layout(self._copy, self._copy, torch.float32, self._layout)
        self.folded = self.reason is None
        # An untraced trunk keeps its float32 weights: what to cast where is for autocast to find out.
        self._autocast = not self.folded and self._dtype != torch.float32
        self._eager, self._trunk = trunk, torch.compile(trunk) if self._compile and copied else trunk
        self.refresh()

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits in float32."""
        self._decide(images)
        with self._at_rest():
            return self._logits(self._run(images, self._trunk)[0])

    def probe(self, images: Float[Tensor, "b c h w"]) -> Probe:
        """One forward pass from a fresh leaf, its graph kept.

        ``features`` is None where the head sees no maps, or reads nothing but a class token; of a part model it is
        what its head reads: the part logits, or maps that they are made from. ``weights`` is given where the head is
        global average pooling and a linear layer, which is verified on numbers, not on names.
        """
        self._decide(images)
        with self._at_rest():
            return self._probe(images.detach().clone().requires_grad_())

    def _probe(self, images: Tensor) -> Probe:
        size = (images.shape[2], images.shape[3])
        recorder = Attending()
        with torch.enable_grad():
            with recorder if self._attention else nullcontext():
                output, inner, beside = self._run(images, self._eager if self._attention else self._trunk)
            if isinstance(output, PartFeatures):
                maps = inner if self._inner else output.maps
                return Probe(images, self._logits(output), maps, part_logits=output.part_logits)
            if self._classifier is None:
                return Probe(images, output, inner)
            auxiliary = self._classifier if isinstance(self._classifier, AuxiliaryClassifier) else None
            part_logits = None if auxiliary is None else auxiliary.part_logits(beside, size)[0]
            places = None
            if isinstance(output, Tensor):  # some networks of timm hand several to their head
                places = places_of(output.shape, size, self._order, self._prefix)
            if places is None:
                features = None
                logits = self._logits(output)
            else:  # by way of the maps, so that a gradient reaches them
                features = places.to_maps(output)
                logits = self._logits(places.from_maps(features, output))
        if self._head is None and places is not None:
            self._head = self._look_at_head(output, places)
        attention = self._attended(tuple(recorder.calls), output, places) if self._attention else None
        if self._inner:
            return Probe(images, logits, inner, attention=attention, part_logits=part_logits)
        if features is None or self._head is None or not self._head.sees_maps:
            return Probe(images, logits, attention=attention, part_logits=part_logits)
        weights = self._final_layer().weight.clone() if self._head.gap_linear else None
        return Probe(images, logits, features, weights, attention, part_logits)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's current weights and running statistics, in place."""
        if self.form == "original":
            return
        source = state_of(self._model)
        if self._folds:
            refold(self._folds, source)
        folded = {name for taken in self._folds for name in taken.names}
        pairs = [
            (target, source[name]) for name, target in state_of(self._copy).items() if name not in folded
        ]
        copy_into([target for target, _ in pairs], [value for _, value in pairs])

    def _decide(self, images: Tensor) -> None:
        """Which form it is, if nobody said and no pass was made yet."""
        if self._undecided:
            form, reason = decide_form(self._given, images)
            self._undecided = False
            if form != "fast":
                self._fall_back(form, reason)

    def _fall_back(self, form: Form, reason: str | None) -> None:
        self._undecided = False
        _log.warning("%s: %s", type(self._given).__name__, reason)
        self._build(form)

    def _at_rest(self) -> AbstractContextManager[None]:
        """A copy is in eval mode and without gradients for good; the model itself for the time of a pass."""
        return nullcontext() if self.form != "original" else borrowed(self._model, self._attending)

    def _run(self, images: Tensor, trunk: Callable[[Tensor], Seen]) -> Seen:
        """What enters the head (the logits, of a model without one) in float32, and what the view has to show."""
        inputs = images if self._classifier is None else self._classifier.normalise(images)
        inputs = inputs.to(torch.float32 if self._autocast else self._dtype)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._autocast):
            output, inner, beside = trunk(inputs.contiguous(memory_format=self._layout))
        return _in_float32(output), inner, _in_float32(beside)

    def _logits(self, output: Any) -> Tensor:
        if self._classifier is None:
            assert isinstance(output, Tensor)
            return output
        with torch.autocast(self._classifier.mean.device.type, enabled=False):
            return self._classifier.answer(output)

    def _final_layer(self) -> nn.Linear:
        assert self._classifier is not None
        layer = self._classifier.get_classifier()
        assert isinstance(layer, nn.Linear)
        return layer

    def _attended(self, blocks: tuple[Attended, ...], output: Tensor, places: Places | None) -> Attention:
        batch, tokens = output.shape[:2]
        whole = {(x.shape[0], x.ndim, x.shape[-2]) for b in blocks for x in (b.query, b.key)}
        once = len({id(b.value) for b in blocks}) == len(blocks)  # not so in differential attention
        every = places is not None and places.order == "NLC" and whole == {(batch, 4, tokens)}
        if self._head is None or places is None or not (every and once):
            assert self._classifier is not None
            raise UserError(
                f"{type(self._classifier.backbone).__name__} does not attend from every token to every other, once a "
                "block (Swin attends within windows), so no attention map of it can be drawn: use grad-cam, xgrad-cam "
                "or layer-cam."
            )
        return Attention(blocks, self._head.reads, places.grid)

    def _look_at_head(self, output: Tensor, places: Places) -> "_Head":
        """Probe the head with random inputs, to detect global pooling followed by a linear layer.

        The last layer gets random weights for this: before training it may be zero, and then it would hide the rest.
        """
        assert self._classifier is not None
        layer, head = self._classifier.get_classifier(), self._classifier.answer
        generator = torch.Generator().manual_seed(derive(0, "head"))

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(output.device)

        inputs = random(4, *output.shape[1:])
        pooled = places.to_maps(inputs).mean(dim=(2, 3))
        linear = layer if isinstance(layer, nn.Linear) else None
        trained_weight = None if linear is None else linear.weight.data
        try:
            if linear is not None:  # the tensor stays: the probe's graph holds it
                linear.weight.data = random(*linear.weight.shape) * linear.in_features**-0.5
            with torch.enable_grad():
                leaf = inputs.requires_grad_()
                logits = head(leaf)
                (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
            gap_linear = linear is not None and linear.in_features == pooled.shape[1]
            gap_linear = gap_linear and torch.allclose(layer(pooled), logits, rtol=1e-4, atol=1e-4)
        finally:
            if linear is not None and trained_weight is not None:
                linear.weight.data = trained_weight
        if places.order != "NLC":
            return _Head(gap_linear, True, torch.ones(0))
        reads = gradient.ne(0).any(dim=2).any(dim=0)
        sees_maps = bool(reads[places.prefix :].any())
        if sees_maps:  # a maximum has few gradients
            reads[places.prefix :] = True
        return _Head(gap_linear, sees_maps, reads.float() / reads.sum())


def decide_form(model: nn.Module, images: Float[Tensor, "b c h w"]) -> tuple[Form, str | None]:
    """The fastest form of view that is faithful to a model, and why it is not ``fast``: see ``faithful_form``."""
    return faithful_form(model, images, lambda form: InferenceView(model, form=form))


@dataclass(frozen=True)
class _Head:
    """What a head makes of the trunk's output.

    Attributes:
        gap_linear: global average pooling and a linear layer, nothing else.
        sees_maps: it reads more than the tokens before the grid's.
        reads: (N,) share of each token among those that it reads; of tokens only.
    """

    gap_linear: bool
    sees_maps: bool
    reads: Tensor


def _is_read_from_parts(model: nn.Module) -> bool:
    """Whether what enters the head of a model are parts and not an encoder's own features."""
    return isinstance(model, PartModel) and not isinstance(model, AuxiliaryClassifier)


def _layers_of_heads(classifier: ImageClassifier | None) -> tuple[str, ...]:
    """The layers that heads for parts read beside the head of the classes."""
    return classifier.part_layers if isinstance(classifier, AuxiliaryClassifier) else ()


def _in_float32(output: Any) -> Any:
    """A trunk's output, or each of several."""
    if isinstance(output, (Tensor, PartFeatures)):
        return output.float()
    if isinstance(output, (list, tuple)):
        return [_in_float32(member) for member in output]
    if isinstance(output, dict):
        return {name: _in_float32(member) for name, member in output.items()}
    return output


def _is_two_halves(model: nn.Module) -> bool:
    """Whether calling a model is calling its trunk and then its head, and nothing of its owner's beside."""
    ours = isinstance(model, ImageClassifier) and type(model).__module__.startswith(__package__ + ".")
    return ours and not has_hooks(model) and "forward" not in vars(model)
