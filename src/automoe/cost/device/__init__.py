"""The times of a device's parts, from which the latency of any architecture is predicted."""
