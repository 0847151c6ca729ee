"""Names of signals by their needs: of the forward, of the graph, of attention, of reruns."""

# Signals that need a graph from the input on.
NEEDS_INPUT_GRAPH = frozenset({"input_grad", "biases"})
# Signals of the one token that the score is read from after the last attention, and of its query.
NEEDS_QUERY = frozenset({"query", "key", "value", "attn_out_grad"})
# Signals that need a rerun of the attention blocks, or of the part after them.
NEEDS_TOKEN_SCORES = frozenset({"token_score", "token_cosines", "token_cosine_blank"})
NEEDS_BLOCKS = NEEDS_TOKEN_SCORES | {
    *("early_exit_grads", "value_tokens", "value_path", "block_tokens", "cosine_and_grad")
}
# Signals that need scores that are cosines.
NEEDS_COSINES = frozenset({"cosines", "token_cosines", "token_cosine_blank", "cosine_and_grad"})
# Signals that need attention to be captured.
NEEDS_ATTENTION = frozenset({"attn", "attn_grad", "rows_to_grid", "to_grid"}) | NEEDS_QUERY | NEEDS_BLOCKS
# Of these, signals that need the gradient at the last attention alone.
NEEDS_LAST_ATTENTION = frozenset({"rows_to_grid"}) | NEEDS_QUERY
# Of these, signals that need all attentions to form a chain over the same tokens.
NEEDS_ATTENTION_CHAIN = frozenset({"attn", "attn_grad", "rows_to_grid"})
# Signals that score changed images or changed activations.
RESCORES = frozenset({"score_of", "score_and_grad", "act_and_grad", "score_from_layer"})
# Signals that rerun only the part after a layer.
RERUNS_FROM_LAYER = frozenset({"score_from_layer", "logits_from_layer"})
