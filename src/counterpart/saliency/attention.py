"""Maps of vision transformers, from the attention of their blocks: rollout, and attention weighted by its gradient.

Both follow what the head reads backwards through the blocks, from the last to the first, as one row of the product of
matrices that the papers write down: so a map costs a vector times a matrix in each block. The attention of a block is
made when its turn comes, and kept for no longer.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..contracts import Attended, Attention

ATTENTION_MAPS = ("attention-rollout", "attention-gradient")


def attention_rollout(attention: Attention) -> Float[Tensor, "b u v"]:
    """How much of each place reaches the head if it moves by attention alone. It is the same for every class.

    Abnar and Zuidema 2020, arXiv 2005.00928, section 3: each block mixes its tokens by half its attention, averaged
    over heads, and half the identity, for the residual connection.

    Differs from the paper in heads that average tokens: there the map is the average of the tokens' rows.
    """
    row = _start(attention)
    for block in reversed(attention.blocks):
        row = (row + _times(row, attention_of(block).mean(dim=1))) / 2
    return _at_places(row, attention)


def attention_gradient(attention: Attention, score: Float[Tensor, ""]) -> Float[Tensor, "b u v"]:
    """How much each place counts for a score, by attention times its gradient.

    The gradient of attention is that of what it mixed times what it mixed, so it need not be part of the graph.

    Chefer et al. 2021, arXiv 2103.15679, equations 5 and 6: the relevance R of self-attention starts as the identity,
    and each block adds E_heads[(gradient * attention)+] R.

    Differs from the paper in heads that average tokens: there the map is the average of the tokens' rows. The
    identity itself is left out, which is zero in the paper's row of the class token.

    Args:
        attention: the attention of a probe, whose graph is kept.
        score: the sum over the batch of what the maps explain.
    """
    start = _start(attention)
    row = torch.zeros_like(start)

    def add(mixed: Tensor, block: Attended) -> None:
        gradient = mixed.float() @ block.value.detach().float().mT
        row.add_(_times(start + row, (gradient * attention_of(block)).relu().mean(dim=1)))

    # A backward pass reaches the blocks last to first too, so none of their gradients need be kept.
    handles = [
        block.mixed.register_hook(partial(add, block=block))  # type: ignore[no-untyped-call]
        for block in attention.blocks
    ]
    try:
        torch.autograd.grad(score, attention.blocks[0].mixed, retain_graph=True)
    finally:
        for handle in handles:
            handle.remove()
    return _at_places(row, attention)


def attention_of(block: Attended) -> Float[Tensor, "b heads n n"]:
    """How much each token (rows) takes from every token (columns), which sums to one.

    It is what the block would return for the identity as its values.
    """
    query, key = block.query.detach().float(), block.key.detach().float()
    mask = block.options.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    identity = torch.eye(key.shape[2], device=key.device).expand(*key.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(query, key, identity, **{**block.options, "attn_mask": mask})


def _start(attention: Attention) -> Tensor:
    return attention.reads.expand(len(attention.blocks[0].query), -1)


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("bn,bnm->bm", row, matrix)


def _at_places(row: Tensor, attention: Attention) -> Tensor:
    height, width = attention.grid
    return row[:, -height * width :].reshape(len(row), height, width)
