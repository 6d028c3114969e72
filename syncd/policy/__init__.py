"""The decisions: values in, values out. ``now`` and jitter are arguments; no clock, file or table is read here.

A rule that a person would want to argue about (when to believe an answer, what may be folded, when to give up)
lives here and nowhere else, each in a file of its own, each tested from values alone.
"""
