"""Which trace a line of the log, a finding or an exemplar belongs to."""

from __future__ import annotations

import sys
from typing import Final

from shadow.traces.spans import Call, Work, current_cause, scope

__all__ = ["exemplar", "first_trace", "trace_fields"]

_API: Final = "opentelemetry.trace"


def trace_fields() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span, and `caused_by`: the trace of the call that work was done for.
    Empty without a span."""
    api = sys.modules.get(_API)
    if api is None:
        return {}
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    found = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    now = scope()
    if isinstance(now, Work) and now.cause is not None and now.cause.trace_id != found["trace_id"]:
        found["caused_by"] = now.cause.trace_id
    return found


def first_trace() -> str:
    """The trace of the application's request that showed what is seen now, else that of the current span; "" without
    one."""
    found = current_cause()
    return "" if found is None else found.trace_id


def exemplar() -> dict[str, str] | None:
    """The labels of an exemplar: those of the span of this call or work, else of its cause, if they are sampled."""
    now = scope()
    if now is None:
        return None
    own = now.own
    if own is not None and own.trace_flags.sampled:
        return {"trace_id": f"{own.trace_id:032x}", "span_id": f"{own.span_id:016x}"}
    found = now.cause if isinstance(now, Call | Work) else None
    return {"trace_id": found.trace_id, "span_id": found.span_id} if found is not None and found.sampled else None
