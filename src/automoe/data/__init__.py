"""Text in, batches of token ids out: corpora, the subword vocabulary, batching."""
