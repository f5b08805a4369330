"""Translation over HTTP: batches under load, and a page that shows which expert each token used."""
