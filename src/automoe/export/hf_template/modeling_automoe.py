"""An AutoMoE translation model for `transformers`: a Transformer with heterogeneous experts, for inference.

It is the model of the AutoMoE package written once more, without its training: the same function of the same
weights. The embedding is one matrix as wide as the wider stack. Each stack reads its leading columns, and
the output layer is the embedding's leading `decoder_width` columns.

Shapes: B sentences (in `generate`: times beams), S source and T target tokens, Q queries, M attended
positions, P positions in the cache, D width, H heads, E = qkv_dim / H, L attended encoder layers,
V vocabulary, N tokens, X experts, K = top_k.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from .configuration_automoe import AutomoeConfig
from .generation_automoe import Asked, EndInTime, checked_source

if TYPE_CHECKING:
    # `save_pretrained` takes along what this module imports. Loading, transformers 4 looks for what these
    # import, too, but copies only what this module itself names.
    from .pipeline_automoe import AutomoeTranslationPipeline  # noqa: F401
    from .text_parts import LineSplitter  # noqa: F401


@dataclass
class AutomoeEncoderOutput(ModelOutput):
    """What the decoder attends to.

    Attributes:
        last_hidden_state: (B, S, D), the last layer's output.
        memory_BLSD: the outputs of the last layers, as many as any decoder layer attends to.
    """

    last_hidden_state: Tensor | None = None
    memory_BLSD: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention whose heads share `qkv_dim`, whatever the widths."""

    def __init__(self, query_width: int, memory_width: int, qkv_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(query_width, qkv_dim)
        self.k = nn.Linear(memory_width, qkv_dim)
        self.v = nn.Linear(memory_width, qkv_dim)
        self.out = nn.Linear(qkv_dim, query_width)

    def keys_values(self, memory_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, M, E) each."""
        return self._split(self.k(memory_BMD)), self._split(self.v(memory_BMD))

    def forward(
        self, query_BQD: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The attended values, (B, Q, D); `mask` is True where a query may look."""
        query_BHQE = self._split(self.q(query_BQD))
        mixed_BHQE = F.scaled_dot_product_attention(query_BHQE, keys_BHME, values_BHME, attn_mask=mask)
        out: Tensor = self.out(mixed_BHQE.transpose(1, 2).flatten(2))
        return out

    def _split(self, projected_BMC: Tensor) -> Tensor:
        return projected_BMC.unflatten(2, (self.heads, -1)).transpose(1, 2)


class SelfAttention(Attention):
    """Attention of every position to those of its own stack up to itself."""

    def __init__(self, width: int, qkv_dim: int, heads: int) -> None:
        super().__init__(width, width, qkv_dim, heads)

    def mix(self, x_BTD: Tensor, causal_TP: Tensor, cache: DynamicCache, index: int) -> Tensor:
        """The update of every position, (B, T, D).

        Args:
            causal_TP: True where a position may look. `cache`: of all layers. `index`: of this one.
        """
        keys, values = cache.update(*self.keys_values(x_BTD), index)
        return self(x_BTD, keys, values, causal_TP)


class _Carried(nn.Module):
    """A mixer that carries one vector on from position to position.

    The cache holds what was carried at every position, in the place of keys: then whatever reorders, cuts or
    repeats a cache does the same to it. There are no values. Half precision would lose what is added to a
    long sum, so it is carried in float32 at least.
    """

    def mix(self, x_BTD: Tensor, causal_TP: Tensor, cache: DynamicCache, index: int) -> Tensor:
        """As of `SelfAttention`."""
        start = causal_TP.shape[1] - causal_TP.shape[0]
        exact = torch.promote_types(x_BTD.dtype, torch.float32)
        before_BD = x_BTD.new_zeros(x_BTD.shape[0], x_BTD.shape[2], dtype=exact)
        if start:
            before_BD = cache.layers[index].keys[:, 0, -1]
        carried_BTD = self.carry(x_BTD, before_BD)
        cache.update(carried_BTD[:, None], carried_BTD[:, None, :, :0], index)
        return self.update(x_BTD, carried_BTD, start)

    @abstractmethod
    def carry(self, x_BTD: Tensor, before_BD: Tensor) -> Tensor:
        """What is carried on after every position, (B, T, D), in the type of `before_BD`."""

    @abstractmethod
    def update(self, x_BTD: Tensor, carried_BTD: Tensor, start: int) -> Tensor:
        """The update of every position, (B, T, D); the first of them is `start`."""


class Gate(nn.Module):
    """`sigmoid(W [x; mean] + b)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(width, width)
        self.of_mean = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor, mean_BTD: Tensor) -> Tensor:
        """The gate, (B, T, D)."""
        return torch.sigmoid(self.of_input(x_BTD) + self.of_mean(mean_BTD))


class AverageAttention(_Carried):
    """The gated mean of all inputs so far (Zhang et al., 2018); carried is their sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_gate, self.mean_gate = Gate(width), Gate(width)

    def carry(self, x_BTD: Tensor, before_BD: Tensor) -> Tensor:
        """As of `_Carried`."""
        return before_BD[:, None] + x_BTD.cumsum(dim=1, dtype=before_BD.dtype)

    def update(self, x_BTD: Tensor, carried_BTD: Tensor, start: int) -> Tensor:
        """As of `_Carried`."""
        ends = start + x_BTD.shape[1]
        counts_T1 = torch.arange(start + 1, ends + 1, device=x_BTD.device, dtype=carried_BTD.dtype)[:, None]
        mean_BTD = (carried_BTD / counts_T1).to(x_BTD.dtype)
        return self.input_gate(x_BTD, mean_BTD) * x_BTD + self.mean_gate(x_BTD, mean_BTD) * mean_BTD


class Ssru(_Carried):
    """The simpler simple recurrent unit (Kim et al., 2019); carried is its cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forget = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width, bias=False)

    def carry(self, x_BTD: Tensor, before_BD: Tensor) -> Tensor:
        """As of `_Carried`."""
        forget_BTD = torch.sigmoid(self.forget(x_BTD)).to(before_BD.dtype)
        added_BTD = (1 - forget_BTD) * self.candidate(x_BTD)
        cells = []
        for t in range(x_BTD.shape[1]):
            before_BD = forget_BTD[:, t] * before_BD + added_BTD[:, t]
            cells.append(before_BD)
        return torch.stack(cells, dim=1)

    def update(self, x_BTD: Tensor, carried_BTD: Tensor, start: int) -> Tensor:
        """As of `_Carried`."""
        return F.relu(carried_BTD).to(x_BTD.dtype)


# Under which name a layer has it.
MIXERS = {"self_attention": "attention", "average_attention": "average", "ssru": "ssru"}


class Expert(nn.Module):
    """`down(relu(up(x)))`; size 0 is the identity."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        if size:
            self.up = nn.Linear(width, size)
            self.down = nn.Linear(size, width)

    def forward(self, tokens_ND: Tensor) -> Tensor:
        """What it makes of each token, (N, D)."""
        if not self.size:
            return tokens_ND
        out: Tensor = self.down(F.relu(self.up(tokens_ND)))
        return out


class MixtureOfExperts(nn.Module):
    """The feed-forward sub-layer. With several experts each token goes to its `top_k` most probable ones,
    whose outputs are scaled by their probabilities (Switch, Fedus et al., 2022); no token is dropped."""

    def __init__(self, width: int, sizes: list[int], top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.experts = nn.ModuleList(Expert(width, size) for size in sizes)
        self.router = nn.Linear(width, len(sizes), bias=False) if len(sizes) > 1 else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The update of every position, (B, T, D)."""
        if self.router is None:
            out_BTD: Tensor = self.experts[0](x_BTD)
            return out_BTD
        tokens_ND = x_BTD.flatten(0, 1)
        # In float32 whatever the model's precision: the choice compares near values.
        probabilities_NX = F.linear(tokens_ND.float(), self.router.weight.float()).softmax(dim=1)
        gates_NK, experts_NK = probabilities_NX.topk(self.top_k, dim=1)
        out_ND = torch.zeros_like(tokens_ND)
        for index, expert in enumerate(self.experts):
            rows, ranks = (experts_NK == index).nonzero(as_tuple=True)
            if len(rows):
                gates = gates_NK[rows, ranks, None].to(tokens_ND.dtype)
                out_ND.index_add_(0, rows, gates * expert(tokens_ND[rows]))
        return out_ND.view_as(x_BTD)


class _Layer(nn.Module):
    """The residual sum around a sub-layer: `x + f(norm(x))`, or `norm(x + f(x))`."""

    def __init__(self, pre: bool) -> None:
        super().__init__()
        self.pre = pre

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre else x

    def after(self, norm: nn.Module, x: Tensor, update: Tensor) -> Tensor:
        return x + update if self.pre else norm(x + update)


class EncoderLayer(_Layer):
    """Self-attention, then the feed-forward sub-layer."""

    def __init__(self, a: dict[str, Any], layer: dict[str, Any], pre: bool) -> None:
        super().__init__(pre)
        width = a["encoder_width"]
        self.attention = Attention(width, width, a["qkv_dim"], layer["self_attention_heads"])
        self.mixture = MixtureOfExperts(width, layer["experts"], layer["top_k"])
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, x_BSD: Tensor, mask: Tensor) -> Tensor:
        """The layer's output, (B, S, D); `mask` is True at the tokens that are no padding."""
        y_BSD = self.before(self.attention_norm, x_BSD)
        update_BSD = self.attention(y_BSD, *self.attention.keys_values(y_BSD), mask)
        x_BSD = self.after(self.attention_norm, x_BSD, update_BSD)
        update_BSD = self.mixture(self.before(self.ffn_norm, x_BSD))
        return self.after(self.ffn_norm, x_BSD, update_BSD)


class DecoderLayer(_Layer):
    """A mixer of positions, attention over the last encoder layers, then the feed-forward sub-layer."""

    def __init__(self, a: dict[str, Any], layer: dict[str, Any], pre: bool, index: int) -> None:
        super().__init__(pre)
        width, qkv_dim = a["decoder_width"], a["qkv_dim"]
        self.index = index
        self.encoder_layers_attended: int = layer["encoder_layers_attended"]
        kind = layer.get("mixer", "self_attention")
        self.mixer_name = MIXERS[kind]
        mixer: nn.Module
        if kind == "self_attention":
            mixer = SelfAttention(width, qkv_dim, layer["self_attention_heads"])
        else:
            mixer = {"average_attention": AverageAttention, "ssru": Ssru}[kind](width)
        self.add_module(self.mixer_name, mixer)
        self.cross = Attention(width, a["encoder_width"], qkv_dim, layer["cross_attention_heads"])
        self.mixture = MixtureOfExperts(width, layer["experts"], layer["top_k"])
        self.add_module(f"{self.mixer_name}_norm", nn.LayerNorm(width))
        self.cross_norm = nn.LayerNorm(width)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BLSD: Tensor,
        causal_TP: Tensor,
        mask_BS: Tensor,
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """The layer's output, (B, T, D).

        Args:
            memory_BLSD: the outputs of the last encoder layers.
            causal_TP: True where a position may look at one of its own stack.
            mask_BS: True at the source's tokens.
            cache: of all layers; it holds earlier positions, and learns of these.
        """
        mixer, norm = getattr(self, self.mixer_name), getattr(self, f"{self.mixer_name}_norm")
        update_BTD = mixer.mix(self.before(norm, x_BTD), causal_TP, cache.self_attention_cache, self.index)
        x_BTD = self.after(norm, x_BTD, update_BTD)

        if not cache.is_updated.get(self.index):
            memory_BMD = memory_BLSD[:, -self.encoder_layers_attended :].flatten(1, 2)
            cache.cross_attention_cache.update(*self.cross.keys_values(memory_BMD), self.index)
            cache.is_updated[self.index] = True
        cached = cache.cross_attention_cache.layers[self.index]
        mask_B11M = mask_BS.repeat(1, self.encoder_layers_attended)[:, None, None]
        update_BTD = self.cross(self.before(self.cross_norm, x_BTD), cached.keys, cached.values, mask_B11M)
        x_BTD = self.after(self.cross_norm, x_BTD, update_BTD)

        update_BTD = self.mixture(self.before(self.ffn_norm, x_BTD))
        return self.after(self.ffn_norm, x_BTD, update_BTD)


class AutomoeEncoder(nn.Module):
    """The embedding and the encoder layers."""

    main_input_name = "input_ids"

    def __init__(self, config: AutomoeConfig) -> None:
        super().__init__()
        a = config.architecture
        self.pad_token_id = config.pad_token_id
        self.width: int = a["encoder_width"]
        self.attended = max(layer["encoder_layers_attended"] for layer in a["decoder"])
        self.embedding = nn.Embedding(config.vocab_size, max(a["encoder_width"], a["decoder_width"]))
        pre = config.norm == "pre"
        self.layers = nn.ModuleList(EncoderLayer(a, layer, pre) for layer in a["encoder"])
        self.norm = nn.LayerNorm(self.width) if pre else nn.Identity()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> AutomoeEncoderOutput:
        """Encode tokens (B, S) that end with EOS, padded on either side; other arguments are ignored."""
        mask_BS = input_ids != self.pad_token_id if attention_mask is None else attention_mask.bool()
        positions_BS = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        x_BSD = embed(input_ids, self.embedding.weight, self.width, positions_BS)
        outputs: list[Tensor] = []
        for layer in self.layers:
            x_BSD = layer(x_BSD, mask_BS[:, None, None])
            outputs.append(x_BSD)
        memory_BLSD = self.norm(torch.stack(outputs[-self.attended :], dim=1))
        return AutomoeEncoderOutput(last_hidden_state=memory_BLSD[:, -1], memory_BLSD=memory_BLSD)


class AutomoeDecoder(nn.Module):
    """The decoder layers."""

    def __init__(self, config: AutomoeConfig) -> None:
        super().__init__()
        a = config.architecture
        pre = config.norm == "pre"
        self.width: int = a["decoder_width"]
        self.layers = nn.ModuleList(
            DecoderLayer(a, layer, pre, index) for index, layer in enumerate(a["decoder"])
        )
        self.norm = nn.LayerNorm(self.width) if pre else nn.Identity()

    def forward(
        self, x_BTD: Tensor, memory_BLSD: Tensor, mask_BS: Tensor, cache: EncoderDecoderCache, start: int
    ) -> Tensor:
        """The hidden states (B, T, D) at the positions from `start` on; the cache holds those before."""
        length = x_BTD.shape[1]
        positions_P = torch.arange(start + length, device=x_BTD.device)
        causal_TP = positions_P[start:, None] >= positions_P
        for layer in self.layers:
            x_BTD = layer(x_BTD, memory_BLSD, causal_TP, mask_BS, cache)
        out_BTD: Tensor = self.norm(x_BTD)
        return out_BTD


class AutomoeForTranslation(PreTrainedModel, GenerationMixin):
    """Encoder, decoder and the output layer, which is the embedding."""

    config_class = AutomoeConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    _supports_sdpa = True

    def __init__(self, config: AutomoeConfig) -> None:
        super().__init__(config)
        self.encoder = AutomoeEncoder(config)
        self.decoder = AutomoeDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The one matrix of source, target and output layer."""
        return self.encoder.embedding

    def get_output_embeddings(self) -> None:
        """None: the output layer is no parameter of its own that could be tied or lost."""
        return

    def get_encoder(self, *args: Any, **kwargs: Any) -> AutomoeEncoder:
        """The encoder, which `generate` calls once."""
        return self.encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: AutomoeEncoderOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        cache: EncoderDecoderCache | None = None,
        labels: None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[Tensor, ...]:
        """The logits (B, T, V) that follow each of `decoder_input_ids` (B, T).

        Args:
            input_ids: (B, S), or else `encoder_outputs`.
            attention_mask: (B, S), 0 at padding; without it padding is found by its token.
            decoder_input_ids: (B, T), BOS first, or what follows the positions in the cache.
            past_key_values, cache: the key-value cache under its name in transformers 4 and 5; extended.
            labels: must be None. kwargs: `return_dict=False` gives a tuple; what else `generate` hands to
                every model is unused.
        """
        if labels is not None:
            raise ValueError("this model is for inference; train it with the AutoMoE package")
        if kwargs.get("output_attentions") or kwargs.get("output_hidden_states"):
            raise ValueError("this model returns neither attention weights nor hidden states")
        if decoder_input_ids is None:
            raise ValueError("decoder_input_ids is missing; to translate call generate()")
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("give input_ids or encoder_outputs")
            encoder_outputs = self.encoder(input_ids, attention_mask)
        memory_BLSD = encoder_outputs.memory_BLSD
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids != self.config.pad_token_id
        if attention_mask is None:
            attention_mask = memory_BLSD.new_ones(memory_BLSD[:, 0, :, 0].shape)
        filled = cache if cache is not None else past_key_values
        if filled is None:
            filled = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        start = filled.get_seq_length()
        weight_VD = self.encoder.embedding.weight[:, : self.decoder.width]
        positions_T = torch.arange(start, start + decoder_input_ids.shape[1], device=decoder_input_ids.device)
        x_BTD = embed(decoder_input_ids, weight_VD, self.decoder.width, positions_T)
        hidden_BTD = self.decoder(x_BTD, memory_BLSD, attention_mask.bool(), filled, start)
        found = Seq2SeqLMOutput(
            logits=F.linear(hidden_BTD, weight_VD),
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
        )
        return found.to_tuple() if kwargs.get("return_dict") is False else found

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate` in which each sentence's longest translation depends on its length.

        It is `int(max_length_ratio * source tokens + max_length_extra)` of the configuration (more where
        `min_new_tokens` or `min_length` need it), or `max_new_tokens` or `max_length` (which counts BOS)
        where that is less. Other arguments as in `transformers`.

        Raises:
            ValueError: the input is no batch of token ids, or this model cannot do what is asked
                (`UNSUPPORTED`).
        """
        asked = Asked(kwargs, generation_config, self.generation_config)
        asked.refuse_unsupported()
        encoded = kwargs.get("encoder_outputs")
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        if encoded is None:
            input_ids = checked_source(input_ids)
        elif getattr(encoded, "memory_BLSD", None) is None:
            raise ValueError("expected encoder_outputs of this model's own encoder, get_encoder()")
        mask_BS = kwargs.get("attention_mask")
        if mask_BS is None:
            if input_ids is None:
                mask_BS = encoded.memory_BLSD.new_ones(encoded.memory_BLSD[:, 0, :, 0].shape)
            else:
                mask_BS = input_ids != self.config.pad_token_id
            kwargs["attention_mask"] = mask_BS.long()
        # In float64, as Python computes it: a rounding must not cost a token.
        lengths_B = mask_BS.sum(dim=1).double()
        limits_B = (self.config.max_length_ratio * lengths_B + self.config.max_length_extra).long()
        prompt = self._decoder_prompt(kwargs.get("decoder_input_ids"))
        # At least one token and end-of-sentence; BOS before them.
        limits_B, longest = asked.limits(limits_B.clamp(min=2) + 1, prompt)
        end_in_time = EndInTime(limits_B, asked.eos_token_ids())
        # In one way, so that none of the configuration's own gets in between.
        lengths = {"min_new_tokens": asked.fewest(prompt), "max_new_tokens": longest - prompt}
        kwargs = {name: kwargs[name] for name in kwargs if name not in (*lengths, "min_length", "max_length")}
        if generation_config is None:
            kwargs |= lengths
        else:
            generation_config = deepcopy(generation_config)
            generation_config.update(**lengths)
        return super().generate(
            inputs,
            generation_config=generation_config,
            logits_processor=LogitsProcessorList([*(logits_processor or []), end_in_time]),
            **kwargs,
        )

    def _decoder_prompt(self, decoder_input_ids: Tensor | None) -> int:
        """How many tokens the decoder starts with; transformers puts BOS before others."""
        if decoder_input_ids is None:
            return 1
        begun = bool((decoder_input_ids[:, 0] == self.config.decoder_start_token_id).all())
        return decoder_input_ids.shape[1] + (0 if begun else 1)


def embed(tokens_BT: Tensor, weight_VD: Tensor, width: int, positions: Tensor) -> Tensor:
    """Scaled embeddings plus sinusoidal positions (Vaswani et al., 2017): sines in even columns.

    Args:
        positions: of the tokens, (T) or (B, T).
    """
    x_BTD = F.embedding(tokens_BT, weight_VD[:, :width]) * width**0.5
    half = torch.arange((width + 1) // 2, dtype=torch.float32, device=x_BTD.device)
    angles = positions[..., None].to(torch.float32) * 10000.0 ** (-half * 2 / width)
    sinusoids = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :width]
    return x_BTD + sinusoids.to(x_BTD.dtype)
