"""Models of transformers that compare images with prompts (CLIP, SigLIP and their relatives): prompts as classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer

from camcli.base.errors import RequestError
from camcli.models.adapters import headless, zero_shot
from camcli.models.adapters.templates import expand_templates, fill_templates
from camcli.models.adapters.zero_shot import ZeroShotClassifier
from camcli.models.sources import tokenizer
from camcli.models.sources.hf_config import read_image_size
from camcli.models.sources.hf_files import ModelFiles
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels

# Number of classes of an untrained network without prompts.
RANDOM_CLASSES = 10
# Tokens to which SigLIP's texts are padded, as in training, whatever its text tower could read.
SIGLIP_TOKENS = 64
# Difference from the library's own scores, relative to the greatest, that another order of roundings makes.
TOLERANCE = 1e-4


class ImageTower(nn.Module):
    """Image tower whose output is the images' embedding.

    Attributes:
        visual: the image tower, named as in :class:`camcli.models.adapters.zero_shot.ZeroShotClassifier`.
        projection: maps its pooled features into the text embedding space; None if they are in it already.
    """

    def __init__(self, visual: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.visual, self.projection = visual, projection

    def forward(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n features"]:
        """Compute the embedding, not normalised."""
        features = take_pooled(self.visual(images), len(images))
        return features if self.projection is None else self.projection(features)


@dataclass(frozen=True, slots=True)
class FolderTokenizer:
    """Tokenizer of a model's folder, in the form that :mod:`camcli.models.sources.tokenizer` takes.

    Attributes:
        tokenizer: the tokenizer of transformers.
        context_length: number of tokens that the model reads, with start and end tokens.
        padding: how texts are padded: to the longest, or to the greatest length.
        vocabulary: number of tokens that the model knows.
        is_english: True if its tokens are CLIP's byte pairs, of which there is one for every letter, but few foreign.
    """

    tokenizer: Any
    context_length: int
    padding: str
    vocabulary: int
    is_english: bool = False

    def __call__(self, texts: list[str]) -> Any:
        """Tokenise texts as the library's zero-shot pipeline does, cut where the model stops reading.

        Raises:
            RequestError: the model does not know a token.
        """
        made = self.tokenizer(
            texts, padding=self.padding, truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        self.check_known(made["input_ids"].flatten().tolist())
        return made

    def check_known(self, ids: list[int]) -> None:
        """Check that the model knows these tokens.

        Raises:
            RequestError: it does not.
        """
        if max(ids, default=0) >= self.vocabulary:
            raise RequestError(
                f"the tokenizer gives the token {max(ids)}, and the model knows {self.vocabulary}",
                "it is another model's: save this one's beside it, by tokenizer.save_pretrained(...)",
            )


def name_prompts(spec: ModelSpec) -> Labels:
    """Make class names of the prompts, or numbers for the random embeddings of an untrained network."""
    return zero_shot.make_labels(spec) if spec.text else Labels.numbered(RANDOM_CLASSES)


def take_pooled(output: Any, images: int) -> Tensor:  # noqa: ARG001
    """Return the pooled features in an image tower's output."""
    pooled: Tensor = output.pooler_output
    return pooled


def find_towers(model: Any, name: str) -> tuple[nn.Module, nn.Module | None]:
    """Find a model's image tower, and the projection behind it if there is one.

    Raises:
        RequestError: the model does not compare pooled embeddings of an image tower and a text tower.
    """
    has_scale = hasattr(model, "logit_scale") or hasattr(model, "temperature")
    if not has_scale or not isinstance(getattr(model, "vision_model", None), nn.Module):
        raise RequestError(
            f"{name} ({type(model).__name__}) does not compare one embedding of an image with one of a prompt",
            "choose a CLIP or SigLIP model, or one of open_clip: camcli models 'open_clip:*'",
        )
    return model.vision_model, getattr(model, "visual_projection", None)


def build_classifier(model: Any, files: ModelFiles, spec: ModelSpec) -> tuple[ZeroShotClassifier, tuple[str, ...]]:
    """Make a classifier of a model's image tower and its prompts' embeddings, and notes on the prompts.

    Raises:
        RequestError: the tokenizer is not there, or the classifier's scores are not the model's own.
    """
    visual, projection = find_towers(model, files.name)
    scale = 1 / model.temperature if hasattr(model, "temperature") else model.logit_scale.exp()
    bias = getattr(model, "logit_bias", None)
    notes: tuple[str, ...] = ()
    if spec.text:
        tokenize = _wrap_tokenizer(model, files)
        prompts, blank, notes = _embed_prompts(model, tokenize, files.name, spec)
    else:  # random embeddings, for a network with random weights
        width = headless.run_on_noise(ImageTower(visual, projection), _find_size(model)).shape[1]
        *some, blank = nn.functional.normalize(torch.randn(RANDOM_CLASSES + 1, width), dim=-1)
        prompts = torch.stack(some)
        notes = (f"no --text was given: {RANDOM_CLASSES} random embeddings stand for classes",)
    module = ZeroShotClassifier(
        visual,
        prompts,
        scale.detach().reshape(()),
        torch.zeros(()) if bias is None else bias.detach().reshape(()),
        blank,
        projection,
        take_pooled,
    ).eval()
    if spec.text and not spec.template:
        _check_scores(model, module, tokenize, files, (*spec.text, *spec.contrast))
    return module, notes


def _find_size(model: Any) -> tuple[int, int]:
    size = read_image_size(model.config)
    if size is None:
        raise RequestError(f"the configuration of {type(model).__name__} does not say the size of its images")
    return size


def load_tokenizer(files: ModelFiles) -> Any:
    """Load the tokenizer of a model's folder.

    Raises:
        RequestError: it is not there, or cannot be read.
    """
    files.check_tokenizer()
    try:
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=files.may_run_code)
    except Exception as error:  # the tokenizer's files and packages raise all kinds of errors
        hint = f"save it beside the model: tokenizer.save_pretrained({str(files.folder)!r})"
        raise tokenizer.loading_error(files.name, error, hint) from error


def _wrap_tokenizer(model: Any, files: ModelFiles) -> FolderTokenizer:
    found = load_tokenizer(files)
    longest = int(model.config.text_config.max_position_embeddings)
    vocabulary = int(model.config.text_config.vocab_size)
    if "siglip" in model.config.model_type:
        return FolderTokenizer(found, min(longest, SIGLIP_TOKENS), "max_length", vocabulary)
    # Positions of RoBERTa's text towers (AltCLIP) begin behind that of the padding.
    offset = found.pad_token_id + 1 if "roberta" in model.config.text_config.model_type and found.pad_token_id else 0
    return FolderTokenizer(
        found, longest - offset, "longest", vocabulary, is_english=model.config.model_type in ("clip", "clipseg")
    )


def _embed_prompts(
    model: Any, tokenize: FolderTokenizer, name: str, spec: ModelSpec
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Embed the prompts and the empty prompt; return both, and notes on the tokenised prompts."""
    prompts, templates = (*spec.text, *spec.contrast), expand_templates(spec.template)
    tokenizer.check_prompts(tokenize, [prompt for prompt in prompts if prompt.strip()], name)

    def embed(some: list[str]) -> Tensor:
        return take_pooled(model.get_text_features(**tokenize(some)), 0)

    [blank] = zero_shot.embed_prompts(embed, [""])
    texts = [text for _, text in fill_templates(prompts, templates)]
    found = zero_shot.embed_prompts(embed, prompts, templates)
    return found, blank, tuple(tokenizer.write_notes(tokenize, prompts, texts))


@torch.no_grad()
def _check_scores(
    model: Any, module: ZeroShotClassifier, tokenize: FolderTokenizer, files: ModelFiles, prompts: tuple[str, ...]
) -> None:
    """Check on noise that a classifier gives the scores of the model itself."""
    noise = torch.randn(1, 3, *_find_size(model), generator=torch.Generator().manual_seed(0))
    wanted = model(pixel_values=noise, **tokenize(list(prompts))).logits_per_image
    if not torch.allclose(module(noise), wanted, atol=TOLERANCE * float(wanted.abs().max()), rtol=TOLERANCE):
        raise RequestError(
            f"{files.name} ({files.architecture}) gives other scores than scaled cosines of its towers' embeddings",
            "choose a CLIP or SigLIP model, or one of open_clip: camcli models 'open_clip:*'",
        )
