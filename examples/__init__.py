"""A shop cached by sqlacache, and a demonstration that visits it: ``python -m examples.demo``."""
