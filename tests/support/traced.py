"""An application with OpenTelemetry: a provider that keeps its spans, the drivers' instrumentations, and what must hold
of every set of spans."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.instrumentation.botocore import AiobotocoreInstrumentor, BotocoreInstrumentor
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult

__all__ = ["Spans", "attributes", "id_of", "scope_of", "traced"]

_OURS: Final = "shadow"


class Spans:
    """What was exported."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter
        self.tracer = provider.get_tracer("application")

    def all(self) -> Sequence[ReadableSpan]:
        self.provider.force_flush()
        return self._exporter.get_finished_spans()

    def clear(self) -> None:
        self._exporter.clear()

    def ours(self) -> list[ReadableSpan]:
        return [each for each in self.all() if scope_of(each) == _OURS]

    def calls(self) -> list[ReadableSpan]:
        """The spans of calls of the surface."""
        return [each for each in self.ours() if "shadow.work" not in attributes(each) and not is_request(each)]

    def requests(self, of: ReadableSpan) -> list[ReadableSpan]:
        return [each for each in self.children(of) if scope_of(each) == _OURS]

    def works(self, kind: str | None = None) -> list[ReadableSpan]:
        found = [each for each in self.ours() if "shadow.work" in attributes(each) and not is_request(each)]
        return [each for each in found if kind in (None, attributes(each)["shadow.work"])]

    def drivers(self) -> list[ReadableSpan]:
        """Spans of the instrumentations."""
        return [each for each in self.all() if "instrumentation" in scope_of(each)]

    def children(self, of: ReadableSpan) -> list[ReadableSpan]:
        own = id_of(of)
        return [each for each in self.all() if each.parent is not None and each.parent.span_id == own]

    def above(self, span: ReadableSpan) -> Iterator[ReadableSpan]:
        by_id = {id_of(each): each for each in self.all()}
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            yield span

    def check(self, *, direct: bool = False) -> None:
        """No span is lost: each parent was exported. None outlives its parent. No driver's request is doubled, nor
        outside of a request or a piece of work of ours, unless the application asks the drivers itself (`direct`).
        What is work begins a trace."""
        by_id = {id_of(each): each for each in self.all()}
        assert len(by_id) == len(self.all())
        for each in self.all():
            if each.parent is None:
                continue
            above = by_id.get(each.parent.span_id)
            assert above is not None, f"{each.name}: its parent was never exported"
            assert above.context.trace_id == each.context.trace_id
            assert above.start_time <= each.start_time <= each.end_time <= above.end_time, (each.name, above.name)
        for work in self.works():
            assert work.parent is None, work.name
            assert all(link.context.is_valid for link in work.links)
        for each in self.drivers():
            if each.parent is not None and not direct:
                assert scope_of(by_id[each.parent.span_id]) == _OURS, (each.name, by_id[each.parent.span_id].name)


def scope_of(span: ReadableSpan) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope else ""


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_request(span: ReadableSpan) -> bool:
    return " on " in span.name


class _Switched(Sampler):
    """Decides as the sampler of the test does."""

    chosen: Sampler = ALWAYS_ON

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        return self.chosen.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return "switched"


@functools.cache
def _provider() -> tuple[TracerProvider, InMemorySpanExporter, _Switched]:
    """One for the process: PyMongo's instrumentation keeps the provider that it has got first."""
    sampler, exporter = _Switched(), InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter, sampler


@contextmanager
def traced(sampler: Sampler = ALWAYS_ON, *, instrumented: bool = True) -> Iterator[Spans]:
    """A configured provider, with the three instrumentations. Clients that are made in the block are instrumented."""
    provider, exporter, switched = _provider()
    switched.chosen = sampler
    exporter.clear()
    instrumentors = [PymongoInstrumentor(), BotocoreInstrumentor(), AiobotocoreInstrumentor()] if instrumented else []
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    for each in instrumentors:
        each.instrument(tracer_provider=provider)
    try:
        yield Spans(provider, exporter)
    finally:
        for each in instrumentors:
            each.uninstrument()
        trace._TRACER_PROVIDER = before
