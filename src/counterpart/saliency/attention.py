"""Maps of vision transformers, from the attention of their blocks: rollout, and attention weighted by its gradient.

Both follow what the head reads backwards through the blocks, from the last to the first, as one row of the product of
matrices that the papers write down: so a map costs a vector times a matrix in each block.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..protocols import Attention

ATTENTION_MAPS = ("attention-rollout", "attention-gradient")


def attention_rollout(attention: Attention) -> Float[Tensor, "b u v"]:
    """How much of each place reaches the head if attention is all that moves it. The same for every class.

    Abnar and Zuidema 2020, arXiv 2005.00928, section 3: each block mixes its tokens by half its attention, averaged
    over heads, and half the identity, for the residual connection.

    Differs from the paper in heads that average tokens: there the map is the average of the tokens' rows.
    """
    row = attention.reads.expand(len(attention.blocks[0]), -1)
    for block in reversed(attention.blocks):
        row = (row + _times(row, block.detach().mean(dim=1))) / 2
    return _at_places(row, attention)


def attention_gradient(attention: Attention, score: Float[Tensor, ""]) -> Float[Tensor, "b u v"]:
    """How much each place counts for a score, by attention times its gradient.

    Chefer et al. 2021, arXiv 2103.15679, equations 5 and 6: the relevance R of self-attention starts as the identity,
    and each block adds E_heads[(gradient * attention)+] R.

    Differs from the paper in heads that average tokens: there the map is the average of the tokens' rows. The
    identity itself is left out, which is zero in the paper's row of the class token.

    Args:
        attention: of a probe; its graph is kept.
        score: sum over the batch of what the maps explain.
    """
    gradients = torch.autograd.grad(score, attention.blocks, retain_graph=True)
    start = attention.reads.expand(len(attention.blocks[0]), -1)
    row = torch.zeros_like(start)
    for block, gradient in zip(reversed(attention.blocks), reversed(gradients), strict=True):
        row = row + _times(start + row, (gradient * block.detach()).relu().mean(dim=1))
    return _at_places(row, attention)


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("bn,bnm->bm", row, matrix)


def _at_places(row: Tensor, attention: Attention) -> Tensor:
    height, width = attention.grid
    return row[:, -height * width :].reshape(len(row), height, width)
