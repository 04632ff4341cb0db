"""Servers for the demonstration and the tests: from wheels, without root, and gone with whoever started them."""
