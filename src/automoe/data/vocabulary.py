"""The four special tokens every vocabulary of the project starts with.

They are constants, not settings: model, batches, search and exported models all rely on them,
and a tokenizer is refused when its first four entries differ.
"""

PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
