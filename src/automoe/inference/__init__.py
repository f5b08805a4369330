"""From text to translations: engines, beam search, and a trained model on disk."""
