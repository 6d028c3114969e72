"""What an operator may set, and nothing else.

Theory of operation. Every setting is one field of one small group (``database``, ``account``, ``pulling``,
``sending``, ``http``, ``erasure``, ``service``), with its default, its bounds and one sentence that says what changes
when it changes; ``Settings`` is the sum of the groups. The groups are plain frozen models: values in, values out. Only
``load`` looks at the world: environment over ``.env`` over secret file over default.

Two rules hold throughout. A name that starts with ``SYNCD_`` and is no setting is an error that names the nearest
right one, because a typo that is silently ignored is a setting that silently does nothing. And no error ever repeats
a value, because the value that is wrong is often the secret that was pasted into the wrong line.

The example file and the README's table are generated from the same fields (``example``, ``table``) and compared in
the tests, so that they cannot drift.
"""

from syncd.settings.accounts import AccountConfig, Accounts, resolve_accounts
from syncd.settings.load import Loaded, SettingsError, load_settings
from syncd.settings.pulling import PullSettings
from syncd.settings.root import GROUPS, Settings

__all__ = [
    "GROUPS",
    "AccountConfig",
    "Accounts",
    "Loaded",
    "PullSettings",
    "Settings",
    "SettingsError",
    "load_settings",
    "resolve_accounts",
]
