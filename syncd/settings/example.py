"""``python -m syncd.settings.example`` prints ``config.example.env``."""

from syncd.settings.table import example_env

if __name__ == "__main__":
    print(example_env(), end="")
