"""From batches to weights: objective, schedule, optimizer, and the loop that survives a kill."""
