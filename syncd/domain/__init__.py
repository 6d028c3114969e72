"""The nouns: what a CRM and its mirror are made of, as frozen values without any I/O, clock or randomness.

A record that came from an answer holds what that answer said and nothing else: a field that the answering endpoint
does not carry is ``msgspec.UNSET``, which is not the same as ``None`` ("the CRM said: nothing there"). Merging code
relies on the difference, so no default in this package may turn one into the other.
"""
