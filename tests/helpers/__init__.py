"""What several tests share: tiny models, tiny runs, toy tasks."""
