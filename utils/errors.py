"""Errors a user can act on. Anything else is a bug and keeps its traceback."""


class LumiError(Exception):
    """Base of every error whose one-line message says what is wrong, where, and what to do."""


class DiskFull(LumiError):
    """No space is left where something is written."""


class ConfigError(LumiError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(LumiError):
    """A corpus, shard, manifest or data set is missing, malformed or does not match."""


class CheckpointError(LumiError):
    """A checkpoint is missing, incomplete, damaged or belongs to another run."""


class PreflightError(LumiError):
    """A proof of the training signal failed; training would have been wasted."""


class BudgetError(LumiError):
    """The time, memory or disk at hand is too small for what was asked."""


class Interrupted(LumiError):
    """SIGINT or SIGTERM arrived: the work so far is saved and the process exits with 75."""
