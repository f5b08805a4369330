"""Translation over HTTP, with a page that shows which expert each token used."""
