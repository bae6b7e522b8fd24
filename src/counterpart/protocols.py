"""The shapes of the exchangeable parts: what a model, a view, an attack, a rule and an objective must offer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from .batch import Batch
from .budget import Budget
from .seeding import Keys


@runtime_checkable
class Classifier(Protocol):
    """``images (B, C, H, W) in [0, 1] -> logits (B, K)``. Normalisation lives inside; never probabilities."""

    def __call__(self, images: Tensor) -> Tensor:
        """Class logits."""
        ...


@dataclass(frozen=True)
class PartOutput:
    """What a part model answers.

    Attributes:
        logits: (B, K) of the classes.
        part_logits: (B, P + 1, h, w) at the segmenter's own resolution, channel 0 being the background.
    """

    logits: Float[Tensor, "b k"]
    part_logits: Float[Tensor, "b p h w"]


@runtime_checkable
class PartModel(Classifier, Protocol):
    """A ``Classifier`` that also says which part each pixel belongs to.

    Attributes:
        part_classes: (P,) the class of each part; part ids are 1 .. P.
        full_resolution: whether features and losses of parts are computed at the images' resolution and not at the
            segmenter's own.
    """

    part_classes: Tensor
    full_resolution: bool

    def forward_parts(self, images: Tensor) -> PartOutput:
        """Class logits and part logits, in one pass."""
        ...

    def classify_parts(self, part_logits: Tensor) -> Tensor:
        """Class logits (B, K) of part logits alone; refused by heads that look at more than them."""
        ...


@dataclass(frozen=True)
class Attended:
    """One block's call of scaled dot-product attention: a fused kernel, so that its weights are nowhere kept.

    Attributes:
        query: (B, heads, N, d).
        key: likewise.
        value: (B, heads, N, e) of each token.
        mixed: (B, heads, N, e) what came out: the weights times ``value``; attached.
        options: of the call, such as its mask and its scale.
    """

    query: Float[Tensor, "b heads n d"]
    key: Float[Tensor, "b heads n d"]
    value: Float[Tensor, "b heads n e"]
    mixed: Float[Tensor, "b heads n e"]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attention:
    """Where the tokens of a transformer look.

    Attributes:
        blocks: first to last.
        reads: share of each token among those that the head reads: one class token, or all that are averaged.
        grid: rows and columns of the last u v tokens; those before them belong to no place.
    """

    blocks: tuple[Attended, ...]
    reads: Float[Tensor, " n"]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Probe:
    """One forward pass of a view, its graph kept, so that whoever comes next need not make it again.

    Attributes:
        images: (B, C, H, W), a leaf that requires grad.
        logits: (B, K) float32, attached to ``images``.
        features: (B, A, u, v) what enters the head, or the output of the layer that the view shows; attached as well.
        weights: (K, A) of the final linear layer where the head is global average pooling and that layer
            (then maps have a closed form), else None.
        attention: of a transformer, where the view shows it, attached.
        part_logits: (B, P + 1, h, w) of a part model, attached to ``images``.
    """

    images: Float[Tensor, "b c h w"]
    logits: Float[Tensor, "b k"]
    features: Float[Tensor, "b a u v"] | None = None
    weights: Float[Tensor, "k a"] | None = None
    attention: Attention | None = None
    part_logits: Float[Tensor, "b p y x"] | None = None


@runtime_checkable
class View(Protocol):
    """A frozen, fast copy of a model for attacks."""

    def __call__(self, images: Tensor) -> Tensor:
        """Class logits (B, K) in float32."""
        ...

    def probe(self, images: Tensor) -> Probe:
        """One forward pass with its graph."""
        ...


@dataclass(frozen=True)
class Attacked:
    """What an attack returns. It is no tensor: the images are ``.images``.

    Attributes:
        images: (B, C, H, W) within the budget.
        forwards: (B,) the passes that each of them cost.
        backwards: (B,) likewise.
        distances: (B,) of attacks that look for the nearest adversarial image: the length of the smallest adversarial
            perturbation met, inside the budget or not; 0 where the clean image is misclassified, inf where none was
            met. It is the plain norm of the perturbation, in the budget's norm and in units of [0, 1] pixels: largest
            change, Euclidean length or sum of changes. Where the radius of ``Linf`` differs from pixel to pixel, it is
            the share of the budget that is used, ``budget.distance``, times the image's largest radius. So in any
            case an image would fall to the budget scaled by t exactly where its distance is at most
            ``t * budget.size``.
        nearest: (B, C, H, W) the image at that distance; the clean one where none was met.
    """

    images: Float[Tensor, "b c h w"]
    forwards: Int[Tensor, " b"]
    backwards: Int[Tensor, " b"]
    distances: Float[Tensor, " b"] | None = None
    nearest: Float[Tensor, "b c h w"] | None = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"Attacked has no {name!r}: {_THREE_FIELDS}")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"Attacked cannot be unpacked: {_THREE_FIELDS}")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch where an ``Attacked`` is given to it in place of a tensor."""
        raise TypeError(f"Attacked is no tensor: {_THREE_FIELDS}")


_THREE_FIELDS = "its images are .images (B, C, H, W); .forwards and .backwards (B,) count the passes of each."


@runtime_checkable
class Attack(Protocol):
    """A pure function; never changes the model's mode, grad flags or hooks.

    The names that ``counterpart`` exports do more for a loop of one's own: they put the model into eval mode for the
    attack and its modes back (``attacks.front_door``).
    """

    def __call__(
        self,
        model: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        budget: Budget,
        keys: Keys,
        start: "Tensor | Probe | None" = None,
    ) -> Attacked:
        """Perturb ``images`` within ``budget``."""
        ...


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its options bound.

    Attributes:
        name: unique in a list of attacks; also the name of its random draws.
        attack: what runs, an ``Attack``; with ``parts`` it takes ``parts`` (B, H, W) and ``annotated`` (B,) as well.
        line: the line of a table that it counts for: all targets and restarts of an attack share one.
        parts: whether it wants the true parts of the images as well.
        by_gradient: whether it follows gradients of the attacked model.
        nearest: whether it looks for the nearest adversarial image at any distance, and so returns ``distances`` and
            ``nearest``: then one run tells of every radius.
    """

    name: str
    attack: Callable[..., Attacked]
    line: str
    parts: bool = False
    by_gradient: bool = True
    nearest: bool = False

    def on(self, model: Classifier, batch: Batch, *, budget: Budget, keys: Keys) -> Attacked:
        """Attack a batch, which holds its parts if they are wanted."""
        known: dict[str, Any] = {"parts": batch.parts, "annotated": batch.has_parts} if self.parts else {}
        return self.attack(model, batch.images, batch.labels, budget=budget, keys=keys, **known)


Rule: TypeAlias = Callable[[Probe, Batch, Keys, Budget], Budget]
"""Narrows the full budget of a batch by one forward pass on it; the keys are for rules that draw at random."""


@dataclass(frozen=True)
class Perturbed:
    """What an objective trains on, and how it came about.

    Attributes:
        images: (B, C, H, W) perturbed images (the clean ones for an objective without attack).
        budget: what the attacker was allowed.
        counts: sums over the batch for the log, such as how many maps were flat.
    """

    images: Float[Tensor, "b c h w"]
    budget: Budget | None = None
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """A training loss.

    Attributes:
        total: scalar with graph: the *mean* over the batch.
        terms: parts of it, detached, for the log.
    """

    total: Float[Tensor, ""]
    terms: Mapping[str, Tensor]


@runtime_checkable
class Perturb(Protocol):
    """The attack inside an objective; runs on the inference view."""

    def __call__(self, view: View, batch: Batch, keys: Keys) -> Perturbed:
        """Make the images to train on."""
        ...


@runtime_checkable
class LossFunction(Protocol):
    """The loss of an objective; runs on the model in training mode."""

    def __call__(self, model: nn.Module, batch: Batch, perturbed: Perturbed) -> Loss:
        """Mean loss over the batch."""
        ...


@dataclass(frozen=True)
class Objective:
    """All that a training method is: an attack and a loss. Knows no optimiser, no config, no device."""

    perturb: Perturb
    loss: LossFunction
