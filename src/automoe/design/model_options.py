"""`ModelOptions`: what of a model is not searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from automoe.design.architecture import Norm
from automoe.errors import checked

Dropout = Annotated[float, Field(ge=0, lt=1)]


@checked("these model options are impossible")
@dataclass(frozen=True)
class ModelOptions:
    """What is not searched.

    Args:
        norm: layer norm after each residual sum (`post`, the paper's) or before each sub-layer (`pre`,
            with a final norm per stack).
        encoder_dropout, decoder_dropout: on embeddings and on each sub-layer's output.
    """

    norm: Norm = "post"
    encoder_dropout: Dropout = 0.0
    decoder_dropout: Dropout = 0.0
