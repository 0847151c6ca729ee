"""Names that other libraries have for methods, and the rows they find."""

import pytest

from camcli.base.errors import RequestError
from camcli.methods import ABSENT, METHODS, fold_name
from camcli.runs.job.job import Job


@pytest.mark.parametrize(
    ("name", "found"),
    [
        # pytorch-grad-cam
        *(("GradCAM", "gradcam"), ("HiResCAM", "hirescam"), ("GradCAMElementWise", "gradcam-elementwise")),
        *(("GradCAMPlusPlus", "gradcam++"), ("XGradCAM", "xgradcam"), ("AblationCAM", "ablation-cam")),
        *(("ScoreCAM", "scorecam"), ("EigenCAM", "eigencam"), ("EigenGradCAM", "eigen-gradcam")),
        *(("LayerCAM", "layercam"), ("FullGrad", "fullgrad"), ("KPCA_CAM", "kpca-cam"), ("FEM", "fem")),
        *(("ShapleyCAM", "shapleycam"), ("FinerCAM", "finer-cam"), ("RandomCAM", "random")),
        ("DeepFeatureFactorization", "dff"),
        # torchcam
        *(("CAM", "cam"), ("SSCAM", "ss-cam"), ("ISCAM", "is-cam"), ("GradCAMpp", "gradcam++")),
        ("SmoothGradCAMpp", "smooth-gradcam++"),
        # Captum
        *(("Saliency", "saliency"), ("InputXGradient", "input-x-gradient"), ("Deconvolution", "deconvnet")),
        *(("IntegratedGradients", "integrated-gradients"), ("GuidedBackprop", "guided-backprop")),
        *(("GuidedGradCam", "guided-gradcam"), ("LayerGradCam", "gradcam"), ("Occlusion", "occlusion")),
        # as people write them
        *(("grad-cam", "gradcam"), ("grad_cam++", "gradcam++"), ("gradcam_plus_plus", "gradcam++")),
        *(("Grad CAM", "gradcam"), ("integrated gradients", "integrated-gradients"), ("IG", "integrated-gradients")),
        *(("attention_rollout", "rollout"), ("RISE", "rise"), ("Grad-ECLIP", "grad-eclip")),
    ],
)
def test_a_name_finds_its_row(name: str, found: str) -> None:
    assert METHODS.find(name).name == found
    assert Job(method=name) == Job(method=found)
    assert Job(method=name).fingerprint == Job(method=found).fingerprint


def test_names_are_of_one_row_each() -> None:
    names = [name for row in METHODS.rows for name in (fold_name(row.name), *row.aliases)]
    assert len(set(names)) == len(names)
    assert all(fold_name(name) == name for name in (*names, *ABSENT))
    assert not ABSENT.keys() & set(names)


def test_options_of_one_method_follow_its_name() -> None:
    job = Job(method="IG,GradCAM", options=("IntegratedGradients.steps=3", "samples=8"))
    assert job.method == "integrated-gradients,gradcam"
    assert job.options == ("integrated-gradients.steps=3", "samples=8")


def test_a_method_that_is_not_here_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="no method 'SHAP'") as caught:
        METHODS.find("SHAP")
    assert caught.value.hint.startswith("nearest to it: integrated-gradients")
