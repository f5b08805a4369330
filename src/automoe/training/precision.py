"""Where products in bfloat16 are fast."""

from __future__ import annotations

import torch


def multiplies_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 is taken to be faster than float32: on a GPU, a CPU with AVX512-BF16 or AMX.

    Args:
        device_type: as in `torch.device(...).type`.
    """
    able = torch.cpu.get_capabilities()
    return device_type != "cpu" or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
