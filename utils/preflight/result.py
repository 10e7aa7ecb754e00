"""What a proof found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one proof, in words a user can act on."""

    name: str
    measured: str
    expected: str
    ok: bool
    remedy: str
    """What to do when it is not ok."""

    def line(self) -> str:
        """Return the one line of a failure."""
        return f"{self.name}: found {self.measured}, expected {self.expected}: {self.remedy}"
