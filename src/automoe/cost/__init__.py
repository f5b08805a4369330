"""What an architecture costs: counted, measured on a device, or predicted."""
