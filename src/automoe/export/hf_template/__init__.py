"""What an exported Hugging Face folder runs, copied there as it is.

The modules import torch, transformers, each other and `text_parts.py`, which is copied beside them: an
exported folder must load where AutoMoE is not installed.
"""
