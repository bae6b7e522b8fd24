"""Shapes in the signatures of our own networks."""

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

Features: TypeAlias = Float[Tensor, "b a p q"]
Output: TypeAlias = Float[Tensor, "b o u v"]  # of a block, which may change channels and size
Logits: TypeAlias = Float[Tensor, "b k"]
