"""The figures of the README, measured in one run on one machine. Each figure stands beside its yardstick of that run."""
