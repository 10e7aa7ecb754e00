"""What an event of a plan is made of, checked where one is read from a file."""

from typing import Any

NEEDED = {
    "skip": "rows", "micro_batch": "micro_batch", "validation": "tokens", "plan": "total",
    "replan": "total", "early_stop": "total", "extend": "total", "fast_paths": "paths",
}  # fmt: skip
"""What an event must say besides its name and step."""
COUNTS = ("step", "total", "rows", "micro_batch", "tokens")


def checked_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of the plan whose keys are what they should be.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("an event without a name")
    for key in {"step", NEEDED.get(event["event"], "step")}:
        if key not in event:
            raise ValueError(f"an event {event['event']} without {key}")
    if any(type(event[key]) is not int or event[key] < 0 for key in COUNTS if key in event):
        raise ValueError(f"an event {event['event']} with a number that is no count")
    if not isinstance(event.get("paths", {}), dict):
        raise ValueError(f"an event {event['event']} whose paths are no table")
    return event
