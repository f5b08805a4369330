"""AutoMoE: search, train and deploy heterogeneous Mixture-of-Experts Transformers for translation."""

__version__ = "0.1.0"
