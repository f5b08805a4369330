"""What a trained model is worth: BLEU, chrF, and which expert each token used."""
