"""The automoe command: arguments in, one clear message out; the work is elsewhere."""
