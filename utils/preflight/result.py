"""What a proof found, and what becomes of it: silence, or one line that names the remedy."""

from collections.abc import Iterable
from dataclasses import dataclass

from utils.errors import PreflightError


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


def require(results: Iterable[CheckResult]) -> int:
    """Return how many proofs there were; the first one that fails ends it.

    Raises:
        PreflightError: a proof failed.
    """
    count = 0
    for result in results:
        count += 1
        if not result.ok:
            raise PreflightError(f"preflight failed: {result.line()}")
    return count
