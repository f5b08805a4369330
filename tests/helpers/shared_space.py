"""A small space in which members differ in everything that sub-networks share by leading blocks."""

from automoe.design.space import DecoderSpace, EncoderSpace, SearchSpace

STACK = {"layer_counts": (2, 3), "self_attention_heads": (2, 4), "ffn_sizes": (0, 5, 8, 12)}
SPACE = SearchSpace(
    qkv_dim=8,
    experts="fractional",
    encoder=EncoderSpace(widths=(6, 10, 12), max_experts=3, top_k=(1, 2), **STACK),
    decoder=DecoderSpace(
        widths=(6, 9, 12),
        max_experts=3,
        top_k=(1, 2),
        cross_attention_heads=(1, 4),
        encoder_layers_attended=(1, 2),
        **STACK,
    ),
)
