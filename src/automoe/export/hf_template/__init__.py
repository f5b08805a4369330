"""What an exported Hugging Face folder runs, copied there as it is.

The modules import torch, transformers and each other, nothing of AutoMoE: an exported folder must load
where AutoMoE is not installed.
"""
