"""A run: from a recipe to a searched, trained and measured model, stage by stage."""
