"""Where the time of a run went, in the format that Perfetto and chrome://tracing read.

Format: "Trace Event Format" (Nat Duca, Dean McNamee): complete events (ph X) in microseconds,
metadata (ph M) that names rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from mconv.planning.outcome import Outcome, Span
from mconv.planning.step_graph import Plan


def find_critical_path(plan: Plan, spans: Mapping[str, Span]) -> list[str]:
    """Return keys from the first step to the last that finished.

    Each step is the latest to finish of those that the next one had to wait for: its inputs, or the
    step whose end made room for it.
    """
    if not spans:
        return []
    path = [max(spans, key=lambda key: spans[key].end)]
    while True:
        now = spans[path[-1]]
        inputs = [key for key in plan.steps[path[-1]].inputs.values() if key in spans]
        before = inputs or [
            key for key, span in spans.items() if span.end <= now.start + 1e-3 and key not in path
        ]
        if inputs:
            latest = max(spans[key].end for key in inputs)
            # it could have started then; had it to wait for a free place, the step that left one is
            # what held it up
            before += [
                key
                for key, span in spans.items()
                if latest < span.end <= now.start + 1e-3 and key not in path
            ]
        if not before:
            return path[::-1]
        path.append(max(before, key=lambda key: spans[key].end))


def render(plan: Plan, outcome: Outcome) -> str:
    """Return the trace as JSON.

    There is a row for each slot, with the steps' kind, model, memory and key, and the critical path
    on top.
    """
    spans = outcome.spans
    begin = min((span.start for span in spans.values()), default=0.0)
    events: list[dict[str, object]] = [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "mconv run"}},
        {"ph": "M", "pid": 1, "tid": 0, "name": "thread_name", "args": {"name": "critical path"}},
    ]
    slots = _assign_slots(spans)
    for slot in sorted(set(slots.values())):
        events.append(
            {
                "ph": "M",
                "pid": 1,
                "tid": slot,
                "name": "thread_name",
                "args": {"name": f"slot {slot}"},
            }
        )
    critical = find_critical_path(plan, spans)
    for key, span in spans.items():
        step = plan.steps[key]
        entry = outcome.entries.get(key)
        event = {
            "ph": "X",
            "pid": 1,
            "tid": slots[key],
            "name": f"{step.kind} {step.plugin}",
            "cat": step.kind,
            "ts": round((span.start - begin) * 1e6),
            "dur": round((span.end - span.start) * 1e6),
            "args": {
                "step": step.label,
                "key": key,
                "status": "error" if key in outcome.errors else "done",
                "peak_rss_bytes": entry.peak_rss_bytes if entry else None,
                "critical": key in critical,
            },
        }
        events.append(event)
        if key in critical:
            events.append({**event, "tid": 0})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n"


def _assign_slots(spans: Mapping[str, Span]) -> dict[str, int]:
    """Return a row for each step so that none overlaps another of its row; rows count from 1."""
    ends: list[float] = []  # of the last step of each row
    rows = {}
    for key, span in sorted(spans.items(), key=lambda item: item[1].start):
        row = next((index for index, end in enumerate(ends) if end <= span.start), None)
        if row is None:
            row = len(ends)
            ends.append(0.0)
        ends[row] = span.end
        rows[key] = row + 1
    return rows
