"""The figures of the README, each beside its yardstick of the same run on the same machine."""
