"""Maps from a transformer's attention.

``attn`` holds A of each block, ``(n, heads, t, t)``, in order of execution, perhaps followed by an attention pooling,
``(n, heads, queries, t)``. ``rows_to_grid`` takes the rows of a relevance that the score depends on, and puts the
patches among the columns on their grid; ``to_grid`` does so with one number a token.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.errors import RequestError

# The numbers of heads and queries may differ between attentions.
AttentionWeights = Float[Tensor, "n _ _ t"]
RowsToGrid = Callable[[Float[Tensor, "n q t"]], Float[Tensor, "n h w"]]
ToGrid = Callable[[Float[Tensor, "n t"]], Float[Tensor, "n h w"]]


def rollout(
    attn: Sequence[AttentionWeights],
    rows_to_grid: RowsToGrid,
    *,
    head_fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
) -> Float[Tensor, "n h w"]:
    """Product over the blocks of (A + I) / 2, A the mean over heads, each row with sum 1 (Abnar 2020, eq. 1).

    The half of I is the residual connection. A pooling by attention after the blocks has none, so there it is A alone.
    With another fusion than the paper's, or with discarded weights, rows are renormalised to sum 1.

    Use: how much each patch can contribute to the token that the score reads, through all attentions.
    Not for: telling classes apart: it does not depend on the class.

    Args:
        head_fusion: how heads are combined; the paper's is mean.
        discard: the share of each block's fused weights, the smallest, that count as zero, from 0 to below 1; an
            addition of Gildenblat 2020, not the paper's.
    """
    if not 0 <= discard < 1:
        raise RequestError(f"discard is {discard}", "give the share of the weights to leave out: 0 or more, below 1")
    relevance = _identity(attn[0])
    for weights in attn:
        fused = _zero_smallest(_fuse_heads(weights, head_fusion), discard)
        if _is_square(fused):
            fused = fused + _identity(weights)
        relevance = fused / fused.sum(-1, keepdim=True) @ relevance
    return rows_to_grid(relevance)


def gae(
    attn: Sequence[AttentionWeights],
    attn_grad: Sequence[AttentionWeights],
    rows_to_grid: RowsToGrid,
) -> Float[Tensor, "n h w"]:
    """R = R + mean_h relu(dy/dA * A) R, block by block from R = I (Chefer 2021, eq. 5 and 6).

    The map is R without the initial I: for the class token's row that makes no difference, and for a mean over the
    patches only a constant. A pooling by attention after the blocks passes mean_h relu(dy/dA * A) R.

    Use: evidence for a class in a vision transformer.
    Not for: evidence against a class: only positive products count.
    """
    relevance = _identity(attn[0])
    pooled = False
    for weights, grad in zip(attn, attn_grad, strict=True):
        passed = (grad * weights).relu().mean(1)
        pooled = not _is_square(passed)
        relevance = passed @ relevance if pooled else relevance + passed @ relevance
    return rows_to_grid(relevance if pooled else relevance - _identity(attn[0]))


def attention(
    attn: Sequence[AttentionWeights],
    rows_to_grid: RowsToGrid,
    *,
    head_fusion: Literal["mean", "max", "min"] = "mean",
) -> Float[Tensor, "n h w"]:
    """A of the last attention, the mean over heads, in the rows of the tokens that the score reads (Dosovitskiy 2021).

    Use: a baseline for the others.
    Not for: explaining a class, or more of the network than its last attention.

    Args:
        head_fusion: how heads are combined.
    """
    return rows_to_grid(_fuse_heads(attn[-1], head_fusion))


def legrad(
    early_exit_grads: Callable[[str], Iterator[AttentionWeights]],
    to_grid: ToGrid,
    *,
    layers: int = 0,
    pool: Literal["head", "mean"] = "head",
) -> Float[Tensor, "n h w"]:
    """Mean over blocks l, heads and queries of relu(ds_l/dA_l), s_l the score after block l (Bousselham 2024).

    The score s_l is computed by the network's own head from the tokens after block l. Where the head pools these by
    attention, A_l is this attention over the tokens of block l, with one query or several; else that of the block.

    Use: where in an image a CLIP vision transformer sees a prompt. By its paper the strongest of the attention methods
    there: 58.7 mIoU on ImageNet-Segmentation, where gae has 47.5 and rollout 40.6.
    Not for: evidence against a class; networks without attention over all patches.

    Args:
        layers: how many of the last blocks are used; 0 for all.
        pool: head, the network's own; or mean, the mean of all tokens instead of the class token, as in the authors'
            code.
    """
    if layers < 0:
        raise RequestError(f"layers is {layers}", "give the number of last blocks to use, or 0 for all")
    blocks = [gradient.relu().mean((1, 2)) for gradient in islice(early_exit_grads(pool), layers or None)]
    return to_grid(torch.stack(blocks).mean(0))


def grad_eclip(
    query: Float[Tensor, "n heads d"],
    key: Float[Tensor, "n heads t d"],
    value: Float[Tensor, "n heads t d2"],
    attn_out_grad: Float[Tensor, "n heads d2"],
    to_grid: ToGrid,
    *,
    similarity: bool = True,
) -> Float[Tensor, "n h w"]:
    """relu(sum over channels of w lambda_i v_i) with w = dy/do, o = sum_i softmax(q k_i) v_i (Zhao 2024).

    In the last attention, q the query of the token that the score reads. lambda_i is the cosine of q and k_i over all
    heads together, scaled to 0..1 over the patches: softmax concentrates on a few patches, and this does not. Queries
    and keys are those of the product, after norms and rotations.

    Use: evidence for a prompt in an image, for CLIP models that read a class token or pool by attention (also the
    pooling of CLIP's ResNets). Its paper finds it strong where attention is sparse, as it is in CLIP.
    Not for: networks that read the mean of the patches, which have no single query; evidence against a class.

    Args:
        similarity: false omits lambda.
    """
    terms = to_grid(torch.einsum("nhtd,nhd->nt", value, attn_out_grad))
    if similarity:
        cosine = to_grid(F.cosine_similarity(key.transpose(1, 2).flatten(2), query.flatten(1).unsqueeze(1), dim=2))
        least, most = (edge.unsqueeze(-1).unsqueeze(-1) for edge in cosine.flatten(1).aminmax(dim=1))
        terms = terms * (cosine - least) / (most - least).clamp(min=torch.finfo(cosine.dtype).tiny)
    map: Tensor = terms.relu()
    return map


def maskclip(
    value_tokens: Float[Tensor, "n t c"],
    token_score: Callable[[Float[Tensor, "n t c"]], Float[Tensor, "n t"]],
    to_grid: ToGrid,
) -> Float[Tensor, "n h w"]:
    """The score of W_o v_i + b alone, patch by patch, signed (Zhou 2022).

    The last attention with every token attending only to itself, so that its values go through the projection (and the
    layer scale) without the residual connection and without the MLP; then the head on each. Where the network pools its
    tokens by attention, the pooling is the last attention, and attends to one token alone.

    Use: what is at each position, by a CLIP model with the names of objects; no gradient is needed. Its paper segments
        images in this way, by the prompt of the highest score at each position.
    Not for: the prediction for the whole image, since the contributions of the class token and the other blocks are
        left out. All patches can be similar to any prompt: --normalize range shows the differences.
    """
    return to_grid(token_score(value_tokens))


def clip_surgery(
    value_path: Callable[[Callable[[Tensor], Tensor], int], Float[Tensor, "n t c"]],
    token_cosines: Callable[[Float[Tensor, "n t c"]], Float[Tensor, "n t prompts"]],
    token_cosine_blank: Callable[[Float[Tensor, "n t c"]], Float[Tensor, "n t"]],
    cosines: Float[Tensor, "n prompts"],
    index: Int[Tensor, " n"],
    to_grid: ToGrid,
    *,
    depth: int = 6,
) -> Float[Tensor, "n h w"]:
    """w_t s_it minus its mean over the prompts t; s_it the cosine of patch i on a second path (Li 2023).

    The path begins with the input of the first of the last blocks. Each block adds its attention, computed from the
    tokens of the network's own path, with softmax(v v^T / sqrt(d)) instead of A; the MLPs are skipped. w_t is the
    softmax over the prompts of twice the image's own cosines, over its mean. With one prompt: s_i minus the cosine with
    the empty one.

    Use: several prompts at once, each where the others are not: its paper calls what all share redundant, and subtracts
        it, for CLIP's transformers and ResNets; it is used to segment images, or for point prompts of another
        segmentation model.
    Not for: classes without prompts; the network's decision, since its own attention and MLPs are left out.

    Args:
        depth: how many of the last blocks the path includes, or all where there are fewer.
    """
    if depth < 1:
        raise RequestError(f"depth is {depth}", "give the number of last blocks on the path: 1 or more")
    tokens = value_path(_attend_by_values, depth)
    prompts = cosines.isfinite().sum(1, keepdim=True)
    # Over its mean: the softmax sums to 1.
    shares = (2 * cosines).softmax(1) * prompts
    weighted = token_cosines(tokens) * shares.unsqueeze(1)
    redundant = weighted.sum(2) / prompts
    if bool((prompts == 1).any()):
        redundant = torch.where(prompts == 1, token_cosine_blank(tokens), redundant)
    return to_grid(weighted[torch.arange(len(index), device=index.device), :, index] - redundant)


def _attend_by_values(values: Float[Tensor, "n heads t d"]) -> Float[Tensor, "n heads t d"]:
    """Compute attention whose queries and keys are the values themselves."""
    attended: Tensor = (values @ values.transpose(-2, -1) * values.shape[-1] ** -0.5).softmax(-1) @ values
    return attended


def _fuse_heads(weights: AttentionWeights, fusion: str) -> Float[Tensor, "n q t"]:
    if fusion == "mean":
        return weights.mean(1)
    return weights.amax(1) if fusion == "max" else weights.amin(1)


def _zero_smallest(weights: Float[Tensor, "n q t"], share: float) -> Float[Tensor, "n q t"]:
    count = int(share * weights[0].numel())
    if not count:
        return weights
    smallest = weights.flatten(1).topk(count, largest=False).indices
    return weights.flatten(1).scatter(1, smallest, 0.0).view_as(weights)


def _is_square(weights: Float[Tensor, "n q t"]) -> bool:
    return weights.shape[1] == weights.shape[2]


def _identity(weights: Tensor) -> Float[Tensor, "t t"]:
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
