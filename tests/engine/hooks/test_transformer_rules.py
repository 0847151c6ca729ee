"""Backward rules for transformers: each by a case worked out by hand, in the forms that networks write it in."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camcli import RequestError
from camcli.engine.hooks.transformer_rules import TransformerRules

ALL = ("cp", "libra", "attnlrp")
of_all = pytest.mark.parametrize("rules", ALL)
PHI_1 = 0.5 * (1 + math.erf(1 / math.sqrt(2)))


def gradients(rules, function, *inputs):
    """The value of a function, and its gradients by the inputs under the rules."""
    leaves = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in inputs]
    with TransformerRules(rules) as mode:
        value = function(*(one.clone() for one in leaves))
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    torch.testing.assert_close(value, function(*(one.clone() for one in leaves)), rtol=0, atol=0)
    assert mode.counts
    return value.detach(), [None if one is None else one.tolist() for one in found]


def near(found, wanted):
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@of_all
def test_a_layer_norms_deviation_is_constant_and_its_mean_is_not(rules):
    # x = (1, 3) has the mean 2 and the deviation 1, so y2 = (x2 - (x1 + x2) / 2) / [1] = 1: (-1/2, 1/2) by x, and
    # -1/2 + 3/2 = 1. The derivative is 0, since two numbers are always standardised to -1 and 1.
    value, [by_x] = gradients(rules, lambda x: F.layer_norm(x, (2,), eps=0.0)[1], [1.0, 3.0])
    assert value == 1
    near(by_x, [-0.5, 0.5])


@of_all
@pytest.mark.parametrize(
    "rms",
    [
        lambda x: F.rms_norm(x, (2,), eps=0.0)[1],
        lambda x: (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)))[1],
        lambda x: (x / x.square().mean().sqrt())[1],
    ],
)
def test_an_rms_norm_divides_by_a_constant(rules, rms):
    # The mean square of (1, 7) is 25.
    near(gradients(rules, rms, [1.0, 7.0])[1], [[0, 0.2]])


@of_all
@pytest.mark.parametrize(
    "normalise",
    [lambda x: F.normalize(x, dim=0)[0], lambda x: (x / x.norm())[0], lambda x: (x * (1 / x.norm()))[0]],
)
def test_a_vector_is_normalised_by_a_constant(rules, normalise):
    near(gradients(rules, normalise, [3.0, 4.0])[1], [[0.2, 0]])


@of_all
def test_a_group_norm_holds_the_deviation_of_each_group_constant(rules):
    # Groups (1, 3) and (0, 8), with deviations 1 and 4; of y4 = 2 (8 - 4) / [4] + 1.
    scale, shift = torch.tensor([1, 1, 1, 2.0]).double(), torch.ones(4).double()

    def norm(x):
        return F.group_norm(x, 2, scale, shift, eps=0.0)[0, 3]

    value, [by_x] = gradients(rules, norm, [[[1.0], [3.0], [0.0], [8.0]]])
    assert value == 3
    near(by_x, [[[0], [0], [-0.25], [0.25]]])


# Two tokens with keys 0 and log 3 are attended by 1/4 and 3/4; values 4 and 8 give 7.
KEYS, VALUES = [[0.0], [math.log(3)]], [[4.0], [8.0]]
ATTENTIONS = {
    "fused": lambda q, k, v: F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None]),
    "written out": lambda q, k, v: (q @ k.T).softmax(-1) @ v,
    "einsum": lambda q, k, v: torch.einsum("ij,jd->id", F.softmax(torch.einsum("id,jd->ij", q, k), dim=-1), v),
    "bmm, dropout": lambda q, k, v: torch.bmm(F.dropout(F.softmax(q[None] @ k.T[None], -1), 0.5, False), v[None]),
}
of_attentions = pytest.mark.parametrize("attend", ATTENTIONS.values(), ids=ATTENTIONS)


@of_attentions
@pytest.mark.parametrize("rules", ["cp", "libra"])
def test_attention_is_constant(rules, attend):
    value, [by_query, by_key, by_value] = gradients(rules, attend, [[1.0]], KEYS, VALUES)
    near(value.flatten().tolist(), [7])
    near(by_value, [[0.25], [0.75]])
    assert by_query in (None, [[0]])
    assert by_key in (None, [[0], [0]])


@of_attentions
def test_attnlrp_shares_both_products_of_attention_and_passes_the_softmax(attend):
    # dO/dA = V is halved, and through the softmax a (v - O): by the scores 1/2 (1/4 (4 - 7), 3/4 (8 - 7)), which is
    # halved again for each of query and key. V gets A / 2.
    _, [by_query, by_key, by_value] = gradients("attnlrp", attend, [[1.0]], KEYS, VALUES)
    near(by_value, [[0.125], [0.375]])
    near(by_key, [[-3 / 16], [3 / 16]])
    near(by_query, [[3 / 16 * math.log(3)]])


@of_attentions
def test_attnlrp_shares_nothing_with_a_query_that_is_a_parameter(attend):
    query = torch.ones(1, 1, dtype=torch.float64)
    _, [by_key, by_value] = gradients("attnlrp", lambda k, v: attend(query, k, v), KEYS, VALUES)
    near(by_value, [[0.125], [0.375]])
    near(by_key, [[-3 / 8], [3 / 8]])


@of_all
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_follows_as_if_it_were_written_out(rules, masked):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(4, 2, batch_first=True).double().eval().requires_grad_(False)
    mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if masked else None

    def split(x, part):
        weight, bias = module.in_proj_weight.chunk(3)[part], module.in_proj_bias.chunk(3)[part]
        return F.linear(x, weight, bias).unflatten(-1, (2, 2)).transpose(1, 2)

    def written_out(x):
        scores = split(x, 0) @ split(x, 1).transpose(-2, -1) / math.sqrt(2)
        scores = scores if mask is None else scores.masked_fill(mask, -torch.inf)
        mixed = scores.softmax(-1) @ split(x, 2)
        return module.out_proj(mixed.transpose(1, 2).flatten(2))[:, :, 1]

    x = torch.randn(2, 3, 4).double().tolist()
    value, found = gradients(rules, lambda x: module(x, x, x, attn_mask=mask, need_weights=False)[0][:, :, 1], x)
    expected, wanted = gradients(rules, written_out, x)
    torch.testing.assert_close(value, expected)
    near(found, wanted)


def test_multi_head_attention_with_keys_of_its_own_is_refused():
    module = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    x = torch.randn(3, 1, 4, requires_grad=True)
    with TransformerRules("libra"), pytest.raises(RequestError, match="extra keys"):
        module(x, x, x)


GELUS = {
    "function": F.gelu,
    "module": nn.GELU(),
    "by erf": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
}


@pytest.mark.parametrize("gelu", GELUS.values(), ids=GELUS)
@pytest.mark.parametrize("rules", ["libra", "attnlrp"])
def test_the_gate_of_a_gelu_is_constant(rules, gelu):
    # x Phi(x): Phi(1) = 0.841 and Phi(0) = 1/2, where the derivative at 1 is 1.083.
    near(gradients(rules, gelu, [1.0, 0.0])[1], [[PHI_1, 0.5]])


SILUS = {
    "function": F.silu,
    "in place": lambda x: F.silu(x * 1, inplace=True),
    "written out": lambda x: x * torch.sigmoid(x),
    "product in place": lambda x: (x * 1).mul_(x.sigmoid()),
}


@pytest.mark.parametrize("silu", SILUS.values(), ids=SILUS)
@pytest.mark.parametrize("rules", ["libra", "attnlrp"])
def test_the_gate_of_a_silu_is_constant(rules, silu):
    near(gradients(rules, silu, [math.log(3), 0.0])[1], [[0.75, 0.5]])


def test_cp_leaves_activations_and_products_alone():
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    with TransformerRules("cp") as mode:
        value = F.gelu(x) * x * x.sigmoid()
    assert not mode.counts
    plain = F.gelu(x) * x * x.sigmoid()
    torch.testing.assert_close(torch.autograd.grad(value.sum(), x), torch.autograd.grad(plain.sum(), x))


@pytest.mark.parametrize("rules", ["libra", "attnlrp"])
def test_the_factors_of_a_product_share_its_gradient(rules):
    # 3 * 5: half of each factor's derivative, so that 3 * 5/2 + 5 * 3/2 = 15.
    near(gradients(rules, lambda a, b: a * b, 3.0, 5.0)[1], [2.5, 1.5])
    near(gradients(rules, lambda a: a * a, 3.0)[1], [3])
    near(gradients(rules, lambda a, b: a.mul_(b), 3.0, 5.0)[1], [2.5, 1.5])


@pytest.mark.parametrize("rules", ["libra", "attnlrp"])
def test_a_factor_made_by_a_sigmoid_is_a_constant_gate(rules):
    # As in squeeze and excitation; also after a reshaping.
    value, [by_x, by_z] = gradients(rules, lambda x, z: x * z.sigmoid().view(2)[:1], [8.0], [math.log(3), 0.0])
    near(value.tolist(), [6])
    near(by_x, [0.75])
    assert by_z in (None, [0, 0])


@of_all
def test_what_is_linear_or_no_part_of_the_graph_is_left_alone(rules):
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    constant = torch.randn(4, 4, dtype=torch.float64)
    with TransformerRules(rules) as mode:
        value = (F.linear(x.relu(), constant) * constant[0] / 2 + x[:, :1]) @ constant.softmax(-1)
        with torch.no_grad():
            F.layer_norm(x, (4,))
        F.gelu(constant)
    plain = (F.linear(x.relu(), constant) * constant[0] / 2 + x[:, :1]) @ constant.softmax(-1)
    assert not mode.counts
    torch.testing.assert_close(torch.autograd.grad(value.sum(), x), torch.autograd.grad(plain.sum(), x))


@of_all
def test_a_softmax_that_no_product_uses_is_no_attention(rules):
    x = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    with TransformerRules(rules):
        probability = x.softmax(-1)[0]
    near(torch.autograd.grad(probability, x)[0].tolist(), [3 / 16, -3 / 16])


def test_half_precision_is_normalised_in_float32():
    x = torch.tensor([[100.0, 101.0, 104.0]], dtype=torch.bfloat16, requires_grad=True)
    with TransformerRules("libra"):
        y = F.layer_norm(x, (3,))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.layer_norm(x, (3,)))
    [by_x] = torch.autograd.grad(y[0, 2], x)
    deviation = x.detach().double().std(correction=0)
    torch.testing.assert_close(by_x[0].double(), torch.tensor([-1, -1, 2]).double() / 3 / deviation, rtol=1e-2, atol=0)


def test_unknown_rules_are_refused():
    with pytest.raises(RequestError, match="backward cannot be 'librra'") as refused:
        TransformerRules("librra")
    assert "libra" in refused.value.hint
