"""What the server's page and a run's report share: their look, and the grid of the expert each token used."""
