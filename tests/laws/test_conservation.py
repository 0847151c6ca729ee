"""What the backward rules of transformers conserve: without biases, input times gradient sums to the score."""

import pytest
import timm
import torch
from networks import pictures, seeded
from timm.layers import GluMlp, SwiGLU
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from vision_transformers import MODELS, timm_vit

from camcli import Explainer, RequestError

# Networks without parameters beyond products: no biases, no tokens and places of their own.
TOKENS = (
    "cls_token",
    "position_embeddings",
    "dist_token",
    "reg_token",
    "pos_embed",
    "class_token",
    "pos_embedding",
    "class_embedding",
)


def without_biases(module):
    """The network with every bias, and every token and place that is a parameter, at zero."""
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        if "bias" in last or last in (*TOKENS, "positional_embedding"):
            nn.init.zeros_(parameter)
    return module


def of_timm(name, **options):
    return seeded(timm.create_model(name, num_classes=5, img_size=32, **options))


def hf_vit():
    hf_models = pytest.importorskip("hf_models", reason="needs transformers")
    pytest.importorskip("transformers", reason="the extra hf")
    return hf_models.make_vit(image_size=32).double()


CASES = {
    **{name: make for name, (make, _) in MODELS.items()},
    "timm gated mlps, rms norms": lambda: timm_vit(mlp_layer=SwiGLU, norm_layer=nn.RMSNorm),
    "timm mixer": lambda: seeded(MlpMixer(5, 32, patch_size=8, num_blocks=2, embed_dim=16)),
    "timm gated mixer": lambda: seeded(
        MlpMixer(5, 32, patch_size=8, num_blocks=2, embed_dim=16, mlp_ratio=1.0, mlp_layer=GluMlp, act_layer=nn.SiLU)
    ),
    "timm swin": lambda: of_timm(
        "swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 2), num_heads=(2, 2), window_size=4
    ),
    "transformers": hf_vit,
}
every_case = pytest.mark.parametrize("case", CASES)


def explained(module, method, rules, target=1):
    [[explanation]] = Explainer(module, method=method, backward=rules)(pictures(1, 32), target=target)
    return explanation


@every_case
def test_with_libra_input_times_gradient_sums_to_the_score(case):
    module = without_biases(CASES[case]())
    with torch.no_grad():
        scores = module(pictures(1, 32))
    score = (scores if isinstance(scores, torch.Tensor) else scores.logits)[0, 1]
    found = explained(module, "input-x-gradient", "libra")
    assert abs(score) > 1e-3
    torch.testing.assert_close(float(found.map.sum()), float(score), rtol=1e-4, atol=1e-6)
    plain = explained(module, "input-x-gradient", "plain")
    assert abs(float(plain.map.sum()) - float(score)) > 1e-2 * abs(float(score))


@pytest.mark.parametrize("case", ["timm mixer", "timm gated mixer"])
def test_with_attnlrp_a_network_without_attention_conserves_too(case):
    # Through a softmax AttnLRP conserves up to its Taylor expansion's bias; without one it is libra's rules.
    module = CASES[case]()
    libra, attnlrp = (explained(module, "input-x-gradient", rules).map for rules in ("libra", "attnlrp"))
    torch.testing.assert_close(attnlrp, libra)


@pytest.mark.parametrize("rules", ["cp", "libra", "attnlrp"])
def test_fused_attention_and_attention_written_out_have_the_same_maps(rules):
    maps = [explained(timm_vit(fused=fused), "input-x-gradient", rules).map for fused in (True, False)]
    torch.testing.assert_close(*maps, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rules", ["cp", "libra", "attnlrp"])
def test_scores_are_the_same_to_the_bit(rules):
    module = timm_vit()
    assert explained(module, "hirescam", rules).score == explained(module, "hirescam", "plain").score


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "saliency", "gae", "grad-eclip", "smoothgrad"])
def test_maps_follow_the_rules(method):
    module = timm_vit()
    plain, libra = (explained(module, method, rules).map for rules in ("plain", "libra"))
    assert not torch.allclose(torch.as_tensor(plain), torch.as_tensor(libra), rtol=1e-2)


def test_images_of_a_batch_do_not_mix():
    module, images = timm_vit(), pictures(3, 32)
    explain = Explainer(module, method="input-x-gradient,hirescam,gae", backward="libra")
    together = explain(images, target=1)
    for row, found in enumerate(together):
        for one, alone in zip(found, explain(images[row : row + 1], target=1)[0], strict=True):
            torch.testing.assert_close(one.map, alone.map, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("rules", ["cp", "libra", "attnlrp"])
def test_recomputed_parts_follow_the_rules_too(rules):
    module = timm_vit(depth=6)
    maps = []
    for recompute in (False, True):
        explain = Explainer(module, method="input-x-gradient,smoothgrad", backward=rules, recompute=recompute)
        maps.append([one.map for one in explain(pictures(1, 32), target=1)[0]])
    assert explain.findings.plan.checkpointed_modules
    for one, again in zip(*maps, strict=True):
        torch.testing.assert_close(one, again)


def test_the_network_is_left_as_it_was():
    module = timm_vit()
    before = explained(module, "hirescam", "plain").map
    explained(module, "hirescam", "libra")
    torch.testing.assert_close(explained(module, "hirescam", "plain").map, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "rules", "reason"),
    [
        ("eigencam", "libra", "takes no gradient of the score"),
        ("scorecam", "cp", "takes no gradient of the score"),
        ("rollout", "cp", "takes no gradient of the score"),
        ("guided-backprop", "libra", "has backward rules of its own"),
        ("shapleycam", "libra", "second derivatives"),
        ("gae", "attnlrp", "use libra or cp"),
        ("hirescam", "lbra", "backward cannot be 'lbra'"),
    ],
)
def test_what_makes_no_sense_is_refused(method, rules, reason):
    with pytest.raises(RequestError, match=reason):
        Explainer(timm_vit(), method=method, backward=rules)


def test_a_network_in_which_they_change_nothing_is_refused():
    module = seeded(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    )
    for method in ("hirescam", "saliency"):
        with pytest.raises(RequestError, match="changes nothing: there is no attention"):
            Explainer(module, method=method, backward="libra")(pictures(1, 32), target=1)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_code_hides_operations():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.act = nn.Conv2d(3, 4, 3), torch.jit.script(nn.GELU())
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.act(self.stem(x)).mean((2, 3)))

    with pytest.raises(RequestError, match="hides its operations"):
        Explainer(seeded(Scripted()), method="hirescam", backward="libra")(pictures(1, 32), target=1)


def test_what_integrated_gradients_lose_is_said():
    explain = Explainer(timm_vit(), method="integrated-gradients", backward="libra")
    assert any("do not sum to the difference" in note for note in explain.notes)
