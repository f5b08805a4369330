"""What may be built: architectures as immutable values, their files, and the space of a search."""
