"""Forwards of a network with what methods need captured, and reruns of parts of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from camcli.engine import devices
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.attention_override import AttentionOverride, twice_differentiable
from camcli.engine.hooks.batch_norms import sound_batch_norms
from camcli.engine.hooks.biases import BiasCapture
from camcli.engine.hooks.capture import Activations, capture_activations, find_layer, run_until
from camcli.engine.hooks.checkpointing import checkpointed
from camcli.engine.hooks.products import OneDNNProducts
from camcli.engine.hooks.relu import BackwardRules
from camcli.engine.hooks.replay import IMAGES, Recording, ReplayPlan, record, repeat_for_variants, replay
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.transformer_rules import TransformerRules
from camcli.engine.hooks.watch import module_stack
from camcli.engine.layers.blocks import BlockCall, BlockStack, record_blocks
from camcli.engine.layers.layout import Layout, to_nchw
from camcli.engine.layers.locate import GridLocation
from camcli.engine.needs import (
    NEEDS_ATTENTION,
    NEEDS_BLOCKS,
    NEEDS_INPUT_GRAPH,
    NEEDS_LAST_ATTENTION,
    NEEDS_QUERY,
    RERUNS_FROM_LAYER,
)
from camcli.images.features import ExtraInputs
from camcli.targets.readers.torchvision_boxes import giving_candidates
from camcli.targets.target import Predictions

# Greatest difference between the scores of few and of many copies of a token, in units of rounding.
COPY_TOLERANCE_EPS = 8


@dataclass(slots=True)
class Plan:
    """Facts about a network that hold for one size of images.

    Attributes:
        layouts: layout of each layer's output.
        calls: the call of each layer that counts, from 1 on; the layers in running order.
        replay_plans: by layer, how the part after it is rerun, if a method needs that.
        batch_sizes: by layer, how many variants of its output a rerun takes at once.
        channel_counts: number of channels of each layer.
        token_layout: how the tokens of attention lie on their grid, if a method needs that.
        attention_count: number of attentions in one forward.
        checkpointed_modules: the modules that are recomputed in the backward, if recomputing was requested.
        block_stack: the attention blocks, if a method needs their activations.
        mixes_images: True if a score of a group was seen to depend on several images.
        locations: where each layer's cells lie in the input, if that was measured.
    """

    layouts: dict[str, Layout] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    replay_plans: dict[str, ReplayPlan] = field(default_factory=dict)
    batch_sizes: dict[str, int] = field(default_factory=dict)
    channel_counts: dict[str, int] = field(default_factory=dict)
    token_layout: Layout | None = None
    attention_count: int = 0
    checkpointed_modules: tuple[nn.Module, ...] = ()
    block_stack: BlockStack | None = None
    mixes_images: bool = False
    locations: dict[str, GridLocation] = field(default_factory=dict)

    @property
    def has_only_pooling(self) -> bool:
        """True if attention blocks are needed and the only attention is a pooling."""
        return self.block_stack is not None and not self.block_stack.blocks


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward of a batch, and what its backward and reruns need.

    Attributes:
        images: the network's input; the start of the graph if a method works at the input.
        predictions: the network's output, parsed.
        activations: the output of each layer.
        backward_rules: how gradients pass activation functions, if a method has a rule for them.
        bias_capture: the biases and where they are added, if a method needs them.
        recordings: by layer, what a rerun of the part after it needs.
        attention_capture: the attentions of the forward, if a method needs them.
        block_calls: the arguments of each block's call, if a method reruns blocks.
        tail_recording: what a rerun of the part after the last block needs.
        token_cache: tokens computed from the blocks for all images, by key.
        answer_cache: by tokens, the predictions for each token alone, with the number of tokens in each batch.
    """

    images: Tensor
    predictions: Predictions
    activations: Activations
    backward_rules: BackwardRules | None
    bias_capture: BiasCapture | None
    recordings: Mapping[str, Recording]
    attention_capture: AttentionCapture | None = None
    block_calls: Mapping[nn.Module, BlockCall] = field(default_factory=dict)
    tail_recording: Recording | None = None
    token_cache: dict[Any, Tensor] = field(default_factory=dict)
    answer_cache: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)


class Runner:
    """Runs a network, and captures the signals that methods need. Every forward of the network starts here.

    Args:
        module: takes ``(n, 3, h, w)``.
        read_predictions: from the module's output and the number of images to the predictions.
        signal_names: names of all signals that any method needs.
        has_rules: True if a method has a backward rule for ReLUs.
        rules_everywhere: True if a method has a backward rule for other activation functions too.
        call: the call that counts of a layer that is called several times; 0 for the last.
        batch_size: number of images per forward where a method scores variants of the images.
        cosine_scaling: scale and bias that turn cosines into scores, if the scores are made of cosines.
        score_shift: constant part of every score, which does not depend on the image.
        transformer_rules: how gradients pass a transformer's operations, if other than by their derivatives.

    Attributes:
        layers: names of the layers explained; may be set later.
        tensor_indices: for layers that return several tensors, the index of the one explained, from 0 on; the first if
            a layer is missing.
        linear_by_onednn: True to have oneDNN compute linear layers; may be set later.
        extra_inputs: passes extra features of the images to the module, if there are some.
    """

    def __init__(
        self,
        module: nn.Module,
        read_predictions: Callable[..., Predictions],
        signal_names: frozenset[str],
        has_rules: bool = False,
        rules_everywhere: bool = False,
        call: int = 0,
        batch_size: int = 8,
        cosine_scaling: tuple[float, float] | None = None,
        score_shift: float = 0.0,
        transformer_rules: TransformerRules | None = None,
    ) -> None:
        self.module, self.read_predictions, self.signal_names = module, read_predictions, signal_names
        self.call, self.batch_size = call, batch_size
        self.cosine_scaling, self.score_shift = cosine_scaling, score_shift
        self.transformer_rules = transformer_rules
        self.extra_inputs = ExtraInputs(module)
        self.memory_format = devices.choose_memory_format(module)
        self.has_rules, self.rules_everywhere = has_rules, rules_everywhere
        self.layers: tuple[str, ...] = ()
        self.tensor_indices: dict[str, int] = {}
        self.linear_by_onednn = False

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Freeze the network and enable gradients while the block runs, whatever the caller has disabled.

        Attention is computed in a twice differentiable way if a method needs second derivatives.
        """
        twice = twice_differentiable() if "hvp" in self.signal_names else nullcontext()
        products = OneDNNProducts() if self.linear_by_onednn else nullcontext()
        norms, rules = sound_batch_norms(self.module), self.transformer_rules or nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.module), norms, twice, products, rules:
            yield

    def recompute_context(self) -> AbstractContextManager[Any]:
        """Return the context in which parts are recomputed: PyTorch leaves function modes while it runs a backward."""
        return self.transformer_rules or nullcontext()

    def make_leaf(self, images: Tensor, from_input: bool = False) -> Tensor:
        """Copy the images to the network's device and dtype, requiring grad if the graph starts at the input."""
        from_input |= self.starts_at_input
        return self.to_fast_layout(devices.copy_to_module(self.module, images.detach())).requires_grad_(from_input)

    @property
    def starts_at_input(self) -> bool:
        """True if the graph starts at the images."""
        return self.has_rules or bool(self.signal_names & NEEDS_INPUT_GRAPH)

    def to_fast_layout(self, images: Tensor) -> Tensor:
        """Return the images in the network's fastest memory format; the output changes by rounding alone."""
        return images.contiguous(memory_format=self.memory_format)

    def settle_memory_format(self, run: Callable[[], None], always: bool = False) -> None:
        """Store the weights of convolutions in the memory format of their input, if the network runs with that.

        Args:
            run: one forward, to try it.
            always: call ``run`` even if there is nothing to try.
        """
        if self.memory_format == torch.contiguous_format:
            return run() if always else None
        self.module.to(memory_format=self.memory_format)
        try:
            return run()
        except RuntimeError:  # an unrelated error is raised again by the rerun
            self.memory_format = torch.contiguous_format
            self.module.to(memory_format=self.memory_format)
            return run()

    def run(
        self,
        images: Tensor,
        picture_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
        plan: Plan | None = None,
        from_input: bool = False,
    ) -> Forward:
        """Run one forward that keeps what the signals need, with the whole graph from the input on if ``from_input``.

        The first forward (without a plan) tries channels-last input, with which modules that use ``view`` may fail.
        """
        if plan is None and self.memory_format == torch.channels_last:
            try:
                return self._run(images, picture_mask, region_mask, plan, from_input)
            except RuntimeError:  # an unrelated error is raised again by the rerun
                self.memory_format = torch.contiguous_format
        return self._run(images, picture_mask, region_mask, plan, from_input)

    def _run(
        self,
        images: Tensor,
        picture_mask: Tensor | None,
        region_mask: Tensor | None,
        plan: Plan | None,
        from_input: bool,
    ) -> Forward:
        leaf = self.make_leaf(images, from_input)
        layers = {name: find_layer(self.module, name)[0] for name in self.layers}
        with ExitStack() as stack, giving_candidates(self.module):
            recordings: dict[str, Recording] = {}
            if plan and self.signal_names & RERUNS_FROM_LAYER:
                # A layer has no replay plan yet while the size is being checked.
                for name in [one for one in layers if one in plan.replay_plans]:
                    replay_plan = plan.replay_plans[name]
                    part = self.tensor_indices.get(name, 0)
                    recorder = record(self.module, layers[name], plan.calls[name], len(leaf), replay_plan.copied, part)
                    recordings[name] = stack.enter_context(recorder)
            activations = stack.enter_context(self.capturing(self.layers))
            backward_rules = stack.enter_context(BackwardRules(self.rules_everywhere)) if self.has_rules else None
            bias_capture = stack.enter_context(BiasCapture()) if "biases" in self.signal_names else None
            block_calls: Mapping[nn.Module, BlockCall] = {}
            tail_recording = None
            if plan and (block_stack := plan.block_stack):
                block_calls = stack.enter_context(record_blocks(block_stack.blocks, block_stack.keep_copies))
                tail_recording = stack.enter_context(
                    record(self.module, block_stack.tail, 1, len(leaf), block_stack.replay_plan.copied)
                )
            if plan:
                recomputing = backward_rules.recomputing if backward_rules else self.recompute_context
                stack.enter_context(checkpointed(plan.checkpointed_modules, recomputing))
            attention_capture = None
            if self.signal_names & NEEDS_ATTENTION:
                running = stack.enter_context(module_stack(self.module)) if plan is None else []
                attention_capture = stack.enter_context(self._capture_attention(len(leaf), plan, running))
            # A network may change its input in place, which a leaf of the graph does not allow.
            output = self.module(leaf.clone())
        predictions = self.read_predictions(output, len(images), picture_mask, region_mask)
        return Forward(
            leaf,
            predictions,
            activations,
            backward_rules,
            bias_capture,
            recordings,
            attention_capture,
            block_calls,
            tail_recording,
        )

    def capturing(self, names: Iterable[str]) -> AbstractContextManager[Activations]:
        """Capture these layers' outputs while the block runs."""
        pairs = {name: find_layer(self.module, name) for name in names}
        layers, parts = ({name: pair[index] for name, pair in pairs.items()} for index in (0, 1))
        return capture_activations(
            cast("dict[str, nn.Module]", layers), self.call, self.tensor_indices, cast("dict[str, str]", parts)
        )

    def compute_cells(
        self, images: Tensor, layouts: Mapping[str, Layout], stop_early: bool = False
    ) -> dict[str, Tensor]:
        """Compute each layer's cells ``(n, c, h, w)``, in the graph that starts at the images if they require grad.

        Args:
            images: input of the network.
            layouts: of the layers.
            stop_early: True if each layer is called once, so that the forward can stop when all have run.

        Raises:
            ValueError: the first dimension of a layer's output is not that of the images.
        """
        with self.capturing(layouts) as activations:
            if stop_early:
                run_until({find_layer(self.module, name)[0] for name in layouts}, lambda: self.module(images.clone()))
            else:
                self.module(images.clone())
        found = {name: to_nchw(activations[name], layout) for name, layout in layouts.items()}
        if any(len(cells) != len(images) for cells in found.values()):
            raise ValueError("its output does not have one row per image")
        return found

    def _capture_attention(self, images: int, plan: Plan | None, running: Sequence[nn.Module]) -> AttentionCapture:
        """Capture attention: all of it in the first forward, to check the chain; later only what the methods need."""
        values = bool(
            self.signal_names & {"attn_grad", "value"}
            or (self.signal_names & NEEDS_BLOCKS and (plan is None or plan.has_only_pooling))
        )
        queries = bool(self.signal_names & NEEDS_QUERY)
        if plan is None or "attn_grad" in self.signal_names:
            return AttentionCapture(images, values, with_queries=queries, module_stack=running)
        last = self.signal_names & NEEDS_LAST_ATTENTION or plan.has_only_pooling
        return AttentionCapture(
            images, values, graph_from=plan.attention_count - 1 if last else -1, with_queries=queries
        )

    # ---- reruns of the part after a layer, or after the blocks

    def run_from_layer(
        self,
        layer: nn.Module,
        recording: Recording,
        given: Tensor,
        images: Tensor,
        replay_plan: ReplayPlan,
        with_graph: bool = False,
    ) -> Predictions:
        """Rerun the part after a layer, with ``given`` in place of its output, and return the predictions."""
        with nullcontext() if with_graph else torch.inference_mode(), replay(layer, recording, given, replay_plan):
            return self._run_replayed(recording, len(given), images, replay_plan)

    def _run_replayed(self, recording: Recording, count: int, images: Tensor, replay_plan: ReplayPlan) -> Predictions:
        if replay_plan.whole_network or replay_plan.required is None or IMAGES in replay_plan.required:
            images = repeat_for_variants(images, recording.images, count // recording.images)
        # The network may change its input in place.
        return self.read_predictions(self.module(images.clone()), count)

    def run_tail(
        self,
        block_stack: BlockStack,
        recording: Recording,
        given: Tensor,
        images: Tensor,
        replay_plan: ReplayPlan | None = None,
        with_graph: bool = False,
    ) -> Predictions:
        """Predict from tokens after the last block ``(m, t, c)``, or from a pooling's output ``(m, heads, q, d)``."""
        replay_plan = replay_plan or block_stack.replay_plan
        if block_stack.blocks:
            return self.run_from_layer(block_stack.tail, recording, given, images, replay_plan, with_graph)
        with (
            torch.inference_mode(),
            AttentionOverride(given),
            replay(block_stack.tail, recording, None, replay_plan, len(given) // recording.images),
        ):
            return self._run_replayed(recording, len(given), images, replay_plan)


def gradient_points(forward: Forward) -> list[Tensor]:
    """List the tensors by which gradients can be taken, the layers first."""
    points = list(forward.activations.values()) + ([forward.images] if forward.images.requires_grad else [])
    if forward.attention_capture is not None:
        points += [one.output for one in forward.attention_capture.attentions if one.output is not None]
    return points


def compute_gradients(
    score: Tensor, points: Sequence[Tensor], retain_graph: bool = False, create_graph: bool = False
) -> list[Tensor]:
    """Compute the gradient of a score by each point; zeros where the score does not depend on it."""
    found: Sequence[Tensor | None] = [None] * len(points)
    if score.requires_grad and points:
        found = torch.autograd.grad(
            score, points, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
        )
    return [torch.zeros_like(one) if back is None else back for one, back in zip(points, found, strict=True)]
