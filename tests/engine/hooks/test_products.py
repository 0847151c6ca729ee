"""Products that oneDNN computes: the same numbers and gradients of every order, and nothing but large float32 ones."""

import pytest
import torch
import torch.nn.functional as F
from networks import seeded, untouched
from torch import nn

from camcli.engine.hooks import products
from camcli.engine.hooks.attention_override import twice_differentiable
from camcli.engine.hooks.products import OneDNNProducts, Product, ProductCounter
from camcli.engine.hooks.state import frozen

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch is built without oneDNN")


@pytest.fixture
def handed(monkeypatch):
    """Whatever its size a product is handed over; the shapes of those that are, input and weight."""
    shapes, multiply = [], products.multiply

    def counted(x, weight, bias=None):
        shapes.append((tuple(x.shape), tuple(weight.shape)))
        return multiply(x, weight, bias)

    for name in ("MIN_ROWS", "MIN_FLOPS", "MIN_ROWS_TRANSPOSED"):
        monkeypatch.setattr(products, name, 0)
    monkeypatch.setattr(products, "multiply", counted)
    return shapes


class Attention(nn.Module):
    """Attention between linear layers, one of them without a bias."""

    def __init__(self):
        super().__init__()
        self.before, self.attention = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.after = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        x = self.before(x).tanh()
        return self.after(self.attention(x, x, x, need_weights=False)[0].transpose(1, 2).transpose(1, 2))


def derivatives(model, x):
    """The output, the gradient of its squares by the input, and the gradient of that gradient's squares."""
    x = x.clone().requires_grad_()
    with frozen(model):
        y = model(x)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    return y.detach(), first.detach(), second


def test_gradients_of_every_order_are_those_in_double_precision(handed):
    model, x = seeded(Attention(), dtype=torch.float32), torch.randn(2, 5, 6, generator=torch.manual_seed(0))
    with OneDNNProducts(), twice_differentiable():
        found = derivatives(model, x)
    with twice_differentiable():
        expected = derivatives(seeded(Attention()), x.double())
    for mine, exact in zip(found, expected, strict=True):
        assert (mine - exact).abs().max() < 2e-6 * exact.abs().max()
    # Forward, by the input and by that of the gradient: both layers and both projections of the attention.
    shapes = {(x[-1], *weight) for x, weight in handed}
    assert {(6, 8, 6), (8, 24, 8), (8, 8, 8), (8, 3, 8), (3, 8, 3), (24, 8, 24), (8, 6, 8)} == shapes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_projections_of_fused_attention_count_too(mode, handed):
    model, x = seeded(Attention(), dtype=torch.float32), torch.randn(2, 5, 6)
    with frozen(model), mode():
        plain = model(x)
        with OneDNNProducts():
            assert torch.allclose(model(x), plain, atol=1e-6)
    assert len(handed) == 4


def test_attention_with_a_mask_or_weights_stays_with_pytorch(handed):
    model, x = seeded(nn.MultiheadAttention(8, 2, batch_first=True), dtype=torch.float32), torch.randn(2, 5, 8)
    closed = torch.zeros(2, 5, dtype=torch.bool)
    closed[:, 3] = True
    with torch.no_grad(), frozen(model):
        for options in ({"key_padding_mask": closed, "need_weights": False}, {"need_weights": True}):
            plain = model(x, x, x, **options)
            with OneDNNProducts():
                found = model(x, x, x, **options)
            assert torch.allclose(found[0], plain[0], atol=1e-6)
            assert (found[1] is None) == (plain[1] is None)


@pytest.mark.parametrize(
    ("run", "count"),
    [
        (lambda x, w, b: F.linear(x.unflatten(0, (8, 2)).transpose(0, 1), w, b), 1),
        (lambda x, w, b: F.linear(x, w, b), 1),
        (lambda x, w, b: F.linear(x.unflatten(0, (4, 2, -1)), w, b), 1),
        (lambda x, w, b: F.linear(x.t().contiguous().t(), w), 1),
        (lambda x, w, b: x @ w.t(), 1),
        (lambda x, w, b: x.double() @ w.double().t(), 0),
        (lambda x, w, b: F.linear(x.bfloat16(), w.bfloat16(), b.bfloat16()), 0),
        (lambda x, w, b: torch.addmm(b, x, w.t(), alpha=2), 0),
        (lambda x, w, b: torch.addmm(x @ w.t(), x, w.t()), 1),
        (lambda x, w, b: torch.bmm(x[None], w.t()[None]), 0),
        (lambda x, w, b: x[:0] @ w.t(), 1),
        (lambda x, w, b: x.to_sparse() @ w.t(), 0),
    ],
)
def test_only_products_of_float32_matrices_are_handed_over(run, count, handed):
    source = torch.manual_seed(0)
    given = torch.randn(16, 6, generator=source), torch.randn(3, 6, generator=source), torch.randn(3, generator=source)
    plain = run(*given)
    assert handed == []
    with OneDNNProducts():
        found = run(*given)
    assert found.shape == plain.shape
    assert found.dtype == plain.dtype
    assert torch.allclose(found, plain, atol=1e-5)
    assert len(handed) == count


def test_small_products_stay_with_pytorch_and_transposed_ones_longer(monkeypatch):
    shapes = []
    monkeypatch.setattr(products, "multiply", lambda x, weight, _=None: shapes.append(len(x)) or x @ weight.t())
    weight = torch.zeros(1024, 2048)
    for rows in (16, 63, 64, 512):  # from 48 on there are enough operations
        with OneDNNProducts():
            F.linear(torch.zeros(rows, 2048), weight)
            torch.zeros(rows, 1024) @ weight
    with OneDNNProducts():
        F.linear(torch.zeros(512, 64), weight[:64, :64])
    assert shapes == [64, 512, 512]


def test_products_are_counted_forward_and_backward():
    layer, x = nn.Linear(6, 3), torch.zeros(2, 5, 6, requires_grad=True)
    with frozen(layer), ProductCounter() as counter:
        layer(layer(x).sum(-1, keepdim=True).expand(-1, -1, 6)).sum().backward()
    assert counter.counts == {Product(10, 6, 3): 2, Product(10, 3, 6): 2}
    assert Product(10, 6, 3).flops == 360


def test_a_cell_that_is_no_number_makes_all_that_is_computed_from_it_none(handed):
    x = torch.zeros(2, 5, 6)
    x[0, 1, 2] = torch.nan
    with OneDNNProducts():
        found = F.linear(x, torch.zeros(3, 6))
    assert handed
    assert found.isnan().nonzero().tolist() == [[0, 1, output] for output in range(3)]


def test_the_network_is_left_as_it_was_after_an_interruption_too(handed):
    model = seeded(Attention(), dtype=torch.float32)

    def interrupt(*_):
        raise KeyboardInterrupt

    with untouched(model):
        hook = model.after.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), OneDNNProducts():
            model(torch.zeros(1, 5, 6))
        hook.remove()
        assert len(handed) == 3
        model(torch.zeros(1, 5, 6))
    assert len(handed) == 3
