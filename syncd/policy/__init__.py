"""The decisions: values in, values out. ``now`` and jitter are arguments; nothing here reads a clock, a file or a table.

A rule that a person would want to argue about (when to believe an answer, what may be folded, when to give up)
lives here and nowhere else, each in a file of its own, each tested from values alone.
"""
