"""The learning rate as a pure function of the plan and the step: warmup, stable, decay to zero."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

ENDLESS = 10**12
"""Total of a run whose length is not known yet."""
WARMUP = 100
"""Steps of warmup of a long run, unless the settings name them."""
FIRST_WARMUP = 20
"""Steps of warmup, unless they are named, while the length of the run is not known."""
WARMUP_SHARE = 0.1
"""Share of a run that warmup takes at most, unless another one is asked for."""


@dataclass(frozen=True)
class Schedule:
    """Warmup-stable-decay over `total` steps; only the start of the decay moves with `total`."""

    total: int
    """Steps of the run."""
    warmup: int
    """Steps of linear warmup."""
    decay_ratio: float
    """Share of the run that decays."""
    decay_start: int
    """Step at which the line to zero begins."""
    decay_peak: float = 1.0
    """Factor at `decay_start`."""
    warmup_share: float = WARMUP_SHARE
    """Share of the run that warmup takes at most."""

    @classmethod
    def plan(
        cls,
        total: int,
        warmup: int | None,
        decay_ratio: float,
        warmup_share: float = WARMUP_SHARE,
    ) -> Self:
        """Return the schedule of a run of `total` steps.

        Warmup takes `warmup_share` of it at most; None is a twentieth and at most `WARMUP` steps.
        """
        start = total - max(1, round(total * decay_ratio))
        if warmup is None:
            warmup = min(WARMUP, max(1, total // 20))
        warmup = min(warmup, max(1, int(total * warmup_share)))
        decay_start = max(start, min(warmup, total - 1))
        return cls(total, warmup, decay_ratio, decay_start, warmup_share=warmup_share)

    def factor(self, step: int) -> float:
        """Return the fraction of the peak rate for step number `step` (0 is the first)."""
        if step < self.warmup and step < self.decay_start:
            return (step + 1) / self.warmup
        if step < self.decay_start:
            return 1.0
        left = (self.total - step) / max(1, self.total - self.decay_start)
        return self.decay_peak * min(1.0, max(0.0, left))

    def phase(self, step: int) -> str:
        """Return the part of the plan that step number `step` belongs to."""
        if step >= self.decay_start:
            return "decay"
        return "warmup" if step < self.warmup else "stable"

    def replanned(self, step: int, total: int) -> Self:
        """Return the schedule from `step` on when the run is to end after `total` steps.

        Before the decay its start moves; inside it the rate goes on from its present value in a
        straight line to zero at the new end.
        """
        total = max(total, step + 1)
        fresh = self.plan(total, self.warmup, self.decay_ratio, self.warmup_share)
        if step < self.decay_start and step <= fresh.decay_start:
            return replace(fresh, warmup=self.warmup)
        return replace(self, total=total, decay_start=step, decay_peak=self.factor(step))


@dataclass(frozen=True)
class Replan:
    """A decision about the length of the run, written down before it takes effect."""

    step: int
    """First step under the new plan."""
    total: int
    """New number of steps."""
    is_fresh: bool = False
    """Whether the rate is that of a run planned so from its beginning (a run made longer by hand);
    else it goes on from its present value."""


def replay(
    events: Iterable[Replan],
    step: int,
    warmup: int | None,
    decay_ratio: float,
    warmup_share: float = WARMUP_SHARE,
) -> Schedule:
    """Return the schedule that holds for `step`: that of the events up to there, in turn.

    Before the first event the run only warms up.
    """
    waiting = Schedule(
        ENDLESS, FIRST_WARMUP if warmup is None else max(1, warmup), decay_ratio, ENDLESS
    )
    found = waiting
    for event in events:
        if event.step > step:
            continue
        if event.total >= ENDLESS:
            found = waiting
        elif event.is_fresh or found.total >= ENDLESS:
            found = Schedule.plan(event.total, warmup, decay_ratio, warmup_share)
        else:
            found = found.replanned(event.step, event.total)
    return found
