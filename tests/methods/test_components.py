"""PCA and k-means of cells: worked out by hand, against scikit-learn, and whatever the order of images and cells."""

import pytest
import torch
from concepts import drawn

from camcli import RequestError
from camcli.methods.components import assign, fit_clusters, fit_components, principal_axes
from camcli.methods.concept import kmeans, kmeans_centres, pca, pca_components


def spread(*deviations, cells=200, channels=6, seed=0):
    """Cells that vary more along some channels than along others, skewed, around a mean that is not zero."""
    rows = drawn(cells, channels, seed=seed)
    rows = rows.abs().pow(1.5)
    return rows * torch.tensor([*deviations, *[0.1] * (channels - len(deviations))]) + 3


def test_axes_by_hand():
    # Along channel 1: -2, -2 and 4 (variance 8, tail to the right); along channel 0: 1, -1 and 0 (variance 2 / 3).
    rows = torch.tensor([[1.0, -2.0], [-1.0, -2.0], [0.0, 4.0]]).double() + 5
    mean, axes, variances, total = principal_axes(rows, 2)
    torch.testing.assert_close(mean, torch.tensor([5.0, 5.0]).double())
    torch.testing.assert_close(axes.abs(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double())
    assert axes[0, 1] > 0
    torch.testing.assert_close(variances, torch.tensor([8, 2 / 3]).double())
    torch.testing.assert_close(total, torch.tensor(8 + 2 / 3).double())


@pytest.mark.parametrize("cells", [5, 200])
def test_axes_are_those_of_scikit_learn(cells):
    sklearn = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is what it is compared with")
    rows = spread(5, 3, 2, cells=cells)
    _, axes, variances, total = principal_axes(rows, 3)
    theirs = sklearn.PCA(3, svd_solver="full").fit(rows.numpy())
    wanted = torch.from_numpy(theirs.components_)
    signs = (wanted * axes).sum(1, keepdim=True).sign()
    torch.testing.assert_close(axes, wanted * signs, rtol=0, atol=1e-9)
    torch.testing.assert_close(variances / total, torch.from_numpy(theirs.explained_variance_ratio_))


def test_the_foreground_is_coloured_by_a_pca_of_its_own():
    act = spread(6, 4, 2, cells=120).reshape(2, 60, 6).mT.reshape(2, 6, 6, 10)
    rows = act.flatten(2).mT.flatten(0, 1)
    found = pca(act, pca_components([*act.flatten(2).mT]), over="set")
    first, *colours = found.maps.movedim(1, 0).flatten(1)
    mean, axis, variance, _ = principal_axes(rows, 1)
    torch.testing.assert_close(first, ((rows - mean) @ axis[0]) / variance.sqrt(), rtol=1e-5, atol=1e-5)
    inside = rows[first > 0]
    assert 0 < len(inside) < len(rows)
    mean, axes, variances, total = principal_axes(inside, 3)
    torch.testing.assert_close(torch.stack(colours, 1), (rows - mean) @ axes.T / variances.sqrt(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.kept_share, (variances.sum() / total).expand(2), rtol=1e-5, atol=1e-5)
    assert found.shares is not None
    torch.testing.assert_close(found.shares[:, 0], (found.maps[:, 0] > 0).double().mean((1, 2)))
    # In standard deviations of the cells they were fitted to.
    torch.testing.assert_close(torch.stack(colours, 1)[first > 0].std(0, correction=0), torch.ones(3).double())


def test_the_other_side_and_the_threshold():
    cells = [spread(6, 4, 2)]
    auto, other = (fit_components(cells, side, 0.0, False) for side in ("auto", "other"))
    torch.testing.assert_close(auto[0, :-1], -other[0, :-1])
    higher = fit_components(cells, "auto", 0.5, False)
    torch.testing.assert_close(higher[0, -2], auto[0, -2] - 0.5)
    assert fit_components(cells, "all", 0.0, False).shape == (3, 8)
    with pytest.raises(RequestError, match="no cell is more than 99 standard deviations"):
        fit_components(cells, "auto", 99.0, False)


@pytest.mark.parametrize("fit", [pca_components, kmeans_centres])
@pytest.mark.parametrize("center", ["set", "picture"])
def test_the_order_of_images_and_cells_does_not_matter(fit, center):
    images = [spread(6, 4, 2, seed=seed) + seed for seed in range(4)]
    wanted = fit(images, center=center)
    order = torch.randperm(len(images[0]), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fit([one[order] for one in images[::-1]], center=center), wanted, rtol=1e-4, atol=1e-5)


def test_with_each_images_own_mean_taken_away_a_shift_of_an_image_changes_nothing():
    act = spread(6, 4, 2, cells=120).reshape(2, 60, 6).mT.reshape(2, 6, 6, 10)
    moved = act + torch.tensor([0.0, 50.0])[:, None, None, None]
    for method in (pca, lambda *given, **more: kmeans(*given, None, **more)):
        fit = pca_components if method is pca else kmeans_centres
        ones = [method(one, fit([*one.flatten(2).mT], center="picture"), center="picture") for one in (act, moved)]
        torch.testing.assert_close(ones[0].maps, ones[1].maps, rtol=1e-4, atol=1e-4)


def blobs(cells=30):
    centres = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 20, 0]]).double()
    sizes = [cells, 2 * cells, 3 * cells]
    return centres, torch.cat([one + 0.1 * drawn(size, 3, seed=size) for one, size in zip(centres, sizes, strict=True)])


def test_segments_are_the_blobs_that_cells_were_drawn_from():
    centres, rows = blobs()
    found = fit_clusters([rows], 3, 100, False)
    torch.testing.assert_close(found[:, :3], centres.flip(0).float(), rtol=0, atol=0.1)
    assert torch.equal(assign(rows, found[:, :3].double()), torch.tensor([2] * 30 + [1] * 60 + [0] * 90))
    assert (found[:, -1] > 0.99).all()
    # By hand: 0, 0 and 3, 5 with two centres at 0 and 4; within 1 + 1 = 2 of 18 in all.
    by_hand = fit_clusters([torch.tensor([[0.0], [0.0], [3.0], [5.0]]).double()], 2, 100, False)
    assert sorted(by_hand[:, 0].tolist()) == [0, 4]
    assert by_hand[0, 1].item() == pytest.approx(1 - 2 / 18)


def test_segments_are_those_of_scikit_learn_from_there_on():
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is what it is compared with")
    rows = spread(6, 4, 2)
    found = fit_clusters([rows], 5, 300, False)
    theirs = cluster.KMeans(5, init=found[:, :-1].double().numpy(), n_init=1).fit(rows.numpy())
    torch.testing.assert_close(found[:, :-1].double(), torch.from_numpy(theirs.cluster_centers_), rtol=1e-4, atol=1e-4)
    total = (rows - rows.mean(0)).square().sum()
    assert found[0, -1].item() == pytest.approx(1 - theirs.inertia_ / float(total), rel=1e-4)


def test_every_cell_is_in_one_segment_and_its_classes_are_of_its_cells_alone():
    act = spread(6, 4, 2, cells=60).mT.reshape(1, 6, 6, 10)
    weights = drawn(4, 6, seed=3)
    asked = []

    def logits(variants):
        for one in variants:
            asked.append(one)
            yield one.mean((2, 3)) @ weights.T

    found = kmeans(act, None, logits, segments=3, over="picture", classes=4)
    assert torch.equal(found.maps.sum(1), torch.ones(1, 6, 10).double())
    assert set(found.maps.unique().tolist()) == {0, 1}
    for number in range(3):
        part = act * found.maps[:, number, None]
        wanted = (part.mean((2, 3)) @ weights.T)[0]
        torch.testing.assert_close(found.score_gains[0, number], wanted.sort(descending=True).values)
    assert len(asked) == 4


def test_what_is_refused():
    flat = torch.ones(1, 4, 3, 3)
    with pytest.raises(RequestError, match="vary along 0 directions, and 1 are shown"):
        pca_components([flat[0].flatten(1).T])
    with pytest.raises(RequestError, match="are of 1 kinds only, and 6 segments"):
        kmeans_centres([flat[0].flatten(1).T])
    with pytest.raises(RequestError, match="a layer of 2 channels and 9 cells"):
        pca(flat[:, :2], None)
    with pytest.raises(RequestError, match="10 segments of 9 cells"):
        kmeans(flat, None, None, segments=10)
    with pytest.raises(RequestError, match="1 segments of 9 cells"):
        kmeans(flat, None, None, segments=1)
    for segments, iterations in ((0, 100), (10, 100), (3, 0)):
        with pytest.raises(RequestError, match=f"{segments} segments of 9 cells, in {iterations} iterations"):
            kmeans_centres([drawn(9, 4)], segments=segments, iterations=iterations)
    # An image by itself fails by itself: its map is zero.
    assert not pca(flat, None, over="picture").maps.any()
    assert not kmeans(flat, None, None, over="picture").maps.any()
