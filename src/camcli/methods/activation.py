"""Maps from a layer's output A alone: they know no class and need no gradient."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm

from camcli.base.errors import RequestError

# Below this share of its greatest possible value, the agreement of two maps is rounding.
SIGN_TOLERANCE = 1e-4
# A kernel has an entry for each pair of cells: at this many it takes 64 MiB an image in float32.
MAX_KERNEL_CELLS = 4096


def flatten_cells(act: Float[Tensor, "n c h w"]) -> Float[Tensor, "n hw c"]:
    """Return every cell's channels as a row."""
    return act.flatten(2).mT


def unflatten_cells(map: Float[Tensor, "*n hw"], act: Float[Tensor, "_ c h w"]) -> Float[Tensor, "*n h w"]:
    """Return rows of cells as maps on the layer's grid."""
    return map.reshape(*map.shape[:-1], *act.shape[2:])


def top_eigenvectors(
    gram: Float[Tensor, "*n m m"], k: int = 1
) -> tuple[Float[Tensor, "*n k"], Float[Tensor, "*n m k"]]:
    """Compute the k largest eigenvalues of symmetric matrices, descending, and their eigenvectors as columns.

    In float64: in float32 the decomposition of a matrix of nearly equal rows may not converge.
    """
    exact = (gram.cpu() if gram.device.type == "mps" else gram).double()
    values, vectors = torch.linalg.eigh(exact)
    return values[..., -k:].flip(-1).to(gram), vectors[..., -k:].flip(-1).to(gram)


def scale_to_unit(rows: Float[Tensor, "n m c"]) -> tuple[Float[Tensor, "n m c"], Float[Tensor, "n 1 1"]]:
    """Return each image's rows divided by their greatest magnitude, and that magnitude.

    Squares of small gradients would underflow otherwise. An image with values that are not finite becomes zeros, and
    its greatest value NaN: a decomposition would fail for the whole batch.
    """
    greatest = rows.abs().amax((1, 2), keepdim=True)
    usable = greatest.isfinite()
    rows = rows.where(usable, 0) / greatest.where(usable & (greatest > 0), 1)
    return rows, greatest.where(usable, torch.nan)


def first_component(rows: Float[Tensor, "n m c"]) -> Float[Tensor, "n m"]:
    """Project the rows on their first right singular vector, whose sign is arbitrary.

    It is computed from the smaller of the two Gram matrices, for all images at once.
    """
    if rows.shape[1] <= rows.shape[2]:
        values, left = top_eigenvectors(rows @ rows.mT)
        return left.squeeze(-1) * values.clamp(min=0).sqrt()
    _, right = top_eigenvectors(rows.mT @ rows)
    return (rows @ right).squeeze(-1)


def fix_sign(component: Float[Tensor, "n m"], rows: Float[Tensor, "n m c"]) -> Float[Tensor, "n m"]:
    """Give a component the sign that makes it agree with the strength of each cell.

    A component has no sign of its own. The rule: ``sum_i component_i |row_i|`` is not negative, so what is active is
    positive. Where all cells are equally strong (tokens after a LayerNorm) that sum is nothing for a centred
    component; then the cells that stand out are positive: ``sum_i component_i^3`` is not negative.
    """
    strength = vector_norm(rows, dim=2)
    agreement = (component * strength).sum(1)
    decided = agreement.abs() > SIGN_TOLERANCE * vector_norm(component, dim=1) * vector_norm(strength, dim=1)
    sign = agreement.where(decided, component.pow(3).sum(1))
    return component.where(sign[:, None] >= 0, -component)


def principal_component(act: Float[Tensor, "n c h w"], *, center: bool = False) -> Float[Tensor, "n h w"]:
    """Compute the first principal component of each image's cells, with the sign of :func:`fix_sign`.

    Args:
        act: activations to decompose.
        center: subtract each channel's mean first, as principal components analysis does.
    """
    rows, greatest = scale_to_unit(flatten_cells(act))
    component = first_component(rows - rows.mean(1, keepdim=True) if center else rows)
    return unflatten_cells(fix_sign(component, rows) * greatest.squeeze(2), act)


def eigencam(act: Float[Tensor, "n c h w"], *, center: bool = False) -> Float[Tensor, "n h w"]:
    """A projected on its first right singular vector: A V_1 with A = U S V^T, cells by channels (Muhammad 2020).

    The sign of a singular vector is arbitrary. Here it follows the magnitude of the cells: the sum over the cells of
    map times |A_ij| is not negative. On activations that are not negative the map is therefore nowhere negative. The
    paper does not centre; pytorch-grad-cam does, and leaves the sign to the linear algebra library.

    Use: a network without a class score, or a wrong prediction: what is in the image for the network, whatever the
        class.
    Not for: telling classes apart (the map is the same for all), or several objects: only the strongest pattern is
        shown.

    Args:
        center: subtract each channel's mean first, as pytorch-grad-cam does; the map then has both signs.
    """
    return principal_component(act, center=center)


def _kernel_matrix(rows: Float[Tensor, "m c"], kernel: str, gamma: float) -> Float[Tensor, "m m"]:
    products = rows @ rows.T
    if kernel == "sigmoid":
        return (gamma * products + 1).tanh()
    if kernel == "poly":
        return (gamma * products + 1).pow(3)
    if kernel == "cosine":
        lengths = products.diagonal().sqrt()
        lengths = lengths.where(lengths > 0, 1)
        return products / (lengths[:, None] * lengths)
    if kernel == "rbf":
        squares = products.diagonal()
        return (-gamma * (squares[:, None] + squares - 2 * products).clamp(min=0)).exp()
    return products


def _first_kernel_component(kernel: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
    """Project points, centred in the kernel's space, on their first component."""
    # If all points are equal, the centred kernel is only rounding.
    rounding = 4 * len(kernel) * torch.finfo(kernel.dtype).eps * kernel.abs().amax()
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    values, vectors = top_eigenvectors((kernel + kernel.T) / 2)
    return vectors.squeeze(-1) * values.where(values > rounding, 0).sqrt()


def kpca_cam(
    act: Float[Tensor, "n c h w"],
    *,
    kernel: Literal["sigmoid", "rbf", "poly", "cosine", "linear"] = "sigmoid",
    gamma: float = 0.0,
) -> Float[Tensor, "n h w"]:
    """The first component of kernel principal components analysis over A's cells (Karmani 2024).

    Each channel's mean is subtracted, k(x, y) taken for every pair of cells, the kernel centred, and the map is its
    first eigenvector times the root of its eigenvalue. The kernels: ``sigmoid`` tanh(gamma x.y + 1), ``rbf`` exp(-gamma
    |x - y|^2), ``poly`` (gamma x.y + 1)^3, ``cosine`` x.y / |x||y|, ``linear`` x.y, which is EigenCAM with ``center``.
    The sign is EigenCAM's: it follows the magnitude of the cells.

    Use: like EigenCAM, where no linear combination of channels isolates the object.
    Not for: telling classes apart; layers with more than 4096 cells, which are refused: the kernel has an entry for
        each pair.

    Args:
        kernel: the similarity of two cells.
        gamma: the scale in the kernel; 0 for one over the number of channels.
    """
    if (count := act.shape[2] * act.shape[3]) > MAX_KERNEL_CELLS:
        raise RequestError(
            f"kernel components of a layer with {count} cells ({act.shape[2]} x {act.shape[3]}) need a value for each "
            f"of {count**2} pairs",
            f"choose a layer with at most {MAX_KERNEL_CELLS} cells, or eigencam",
        )
    gamma = gamma or 1 / act.shape[1]
    rows = flatten_cells(act)
    usable = rows.isfinite().all(2).all(1)[:, None]
    rows = rows.where(usable[..., None], 0)
    centred = rows - rows.mean(1, keepdim=True)
    # Image by image, so that only one kernel is in memory.
    component = torch.stack([_first_kernel_component(_kernel_matrix(one, kernel, gamma)) for one in centred])
    return unflatten_cells(fix_sign(component, rows).where(usable, torch.nan), act)


def fem(act: Float[Tensor, "n c h w"], *, k: float = 2.0) -> Float[Tensor, "n h w"]:
    """Sum over the channels of mean(A_k) [A_k >= mean(A_k) + k std(A_k)] (Fuad 2020).

    Each channel is thresholded where it is unusually active; its weight is its mean. pytorch-grad-cam weights the
    activations instead, by the share of cells that pass.

    Use: a quick look at what is salient to the network, without a class.
    Not for: telling classes apart; layers whose channels can have a negative mean, and so a negative weight; grids of
        few cells: with k = 2 no cell can pass on fewer than 5.

    Args:
        k: how many standard deviations above the channel's mean a cell must be.
    """
    mean = act.mean((2, 3), keepdim=True)
    std = act.std((2, 3), keepdim=True, correction=0)
    # A constant channel stands out nowhere.
    passes = (act >= mean + k * std) & (std > 0)
    return (mean * passes).sum(1)


def lafam(act: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """The mean of A over the channels (Karjauv 2024).

    Use: networks without a class score, and a first look at any layer: no method is cheaper.
    Not for: telling classes apart; layers whose channels have both signs, where they cancel.
    """
    return act.mean(1)


def activation(act: Float[Tensor, "n c h w"], channel: Int[Tensor, " n"]) -> Float[Tensor, "n h w"]:
    """A_k: where the channel that the target names is active. Signed, in the layer's own units.

    Use: what a feature of a backbone responds to (``--target channel:12``), without a class.
    Not for: why a class was chosen: ``--target channels:top:5`` finds the channels that contribute most to it.
    """
    return act[torch.arange(len(act), device=act.device), channel]


def random(act: Float[Tensor, "n c h w"], *, seed: int = 0) -> Float[Tensor, "n h w"]:
    """Uniform noise in 0..1 on the layer's grid, the same for every image.

    Use: the baseline for every measure of a method.
    Not for: explaining anything.

    Args:
        seed: which noise.
    """
    noise = torch.rand(act.shape[2:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return noise.to(act).expand(len(act), -1, -1).clone()
