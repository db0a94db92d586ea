"""Spans of OpenTelemetry: of the application's calls, of their requests to a store, and of the work that they cause.

- A *call* is a span for each call of the surface, a child of whatever span is current. It is current itself until the
  call returns.
- A *request* is its child, for each time that a store is asked on the caller's path.
- *Work* is what shadow does off that path: shadow reads, replication, repairs, jobs. Its span begins a trace of its
  own, which is linked to the call that caused it: the call, and often the whole request of the application, has ended
  by then. What a call without a sampled span causes has no span, and neither has anything that instrumented drivers do
  for it.

No span outlives its call: what is still open when the call ends, because its caller was cancelled or its time was
over, ends with it; what is asked after that is work.

Only the API of OpenTelemetry is used, and only once something else has loaded it: without that nobody can have
configured a provider. Spans hold names of verbs, collections, stores and classes of errors, and never a value.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from shadow.model.phase import Role, StoreName
from shadow.traces.statements import statement

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, SpanKind, Tracer

__all__ = [
    "ATTRIBUTES",
    "NO_TRACES",
    "UNTRACED",
    "Call",
    "Cause",
    "Request",
    "Scope",
    "Traces",
    "Untraced",
    "Work",
    "cause",
    "caused",
    "current_cause",
    "here",
    "scope",
]

T = TypeVar("T")

_API: Final = "opentelemetry.trace"
_PROVIDER: Final = "OTEL_PYTHON_TRACER_PROVIDER"
"""The environment variable that makes the API load a provider by itself."""
_SYSTEMS: Final = {StoreName.MONGO: "mongodb", StoreName.DYNAMO: "aws.dynamodb"}

ATTRIBUTES: Final = frozenset(
    f"shadow.{name}"
    for name in (
        "attempt", "deferred", "healing", "job", "mismatch", "not_portable", "role", "routed", "shed", "store",
        "verdict", "work",
    )
)  # fmt: skip
"""The attributes of our own; the others are those of the semantic conventions."""

Attributes: TypeAlias = "Mapping[str, str | int | bool | Sequence[str]]"


@dataclass(frozen=True, slots=True)
class Cause:
    """The span of the call that causes some work."""

    context: SpanContext

    @property
    def sampled(self) -> bool:
        return bool(self.context.trace_flags.sampled)

    @property
    def trace_id(self) -> str:
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self.context.span_id:016x}"


class _Maker:
    """Starts and ends spans. The application's samplers and processors run in that, so what they raise is passed to
    `failed`, and there is no span."""

    __slots__ = ("_failed", "_tracer")

    def __init__(self, tracer: Tracer, failed: Callable[[Exception], None]) -> None:
        self._tracer: Final = tracer
        self._failed: Final = failed

    def start(self, name: str, kind: SpanKind, attributes: Attributes, **options: Any) -> Span | None:
        try:
            return self._tracer.start_span(name, kind=kind, attributes=attributes, **options)
        except Exception as error:
            self._failed(error)
            return None

    def end(self, span: Span) -> None:
        try:
            span.end()
        except Exception as error:
            self._failed(error)


class Untraced:
    """In place of a span, where there is none."""

    __slots__ = ()
    cause: Cause | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def failed(self, error: BaseException) -> None:
        """Nothing has a status."""

    def mark(self, name: str, value: str | int | bool | Sequence[str]) -> None:
        """Nothing has attributes."""


UNTRACED: Final = Untraced()
"""Can be used for any number of blocks at once."""


class _Spanned:
    """A span that is current while its block runs. It ends with the block, or earlier by `end`."""

    __slots__ = ("_attached", "_maker", "_span")

    def __init__(self, maker: _Maker) -> None:
        self._maker: Final = maker
        self._span: Span | None = None
        self._attached: Any = None

    def _attach(self, span: Span | None, context: Context | None = None) -> None:
        from opentelemetry import context as contexts
        from opentelemetry.trace import set_span_in_context

        if span is not None:
            self._attached = contexts.attach(set_span_in_context(span, context))

    def _detach(self) -> None:
        from opentelemetry import context as contexts

        if self._attached is not None:
            contexts.detach(self._attached)
            self._attached = None

    def mark(self, name: str, value: str | int | bool | Sequence[str]) -> None:
        """Sets an attribute."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def failed(self, error: BaseException) -> None:
        """Marks the span with the error's class and code. Not with its text, which in the drivers' errors quotes
        documents."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        kind = type(error)
        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", f"{kind.__module__}.{kind.__qualname__}")
        code = getattr(error, "code", None)
        if isinstance(code, int):
            self._span.set_attribute("db.response.status_code", str(code))

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, StopAsyncIteration | GeneratorExit):
            self.failed(error)
        self.end()
        self._detach()

    def end(self) -> None:
        """Ends the span. Further calls do nothing."""
        span, self._span = self._span, None
        if span is not None:
            self._maker.end(span)


class Scope(_Spanned):
    """A call, or a piece of work: what requests belong to."""

    __slots__ = ("_reset", "attributes", "cause", "ended", "name", "open")

    def __init__(self, maker: _Maker, name: str, attributes: Attributes) -> None:
        super().__init__(maker)
        self.name: Final = name
        self.attributes: Final = attributes
        self.cause: Cause | None = None
        self.open: set[Request] = set()
        self.ended = False
        self._reset: Token[Scope | None] | None = None

    @property
    def maker(self) -> _Maker:
        return self._maker

    @property
    def recorded(self) -> bool:
        """Whether there is a span."""
        return self._span is not None

    @property
    def own(self) -> SpanContext | None:
        """Of its span."""
        return None if self._span is None else self._span.get_span_context()

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.ended = True
        for request in list(self.open):
            if error is not None:
                request.failed(error)
            request.end()
        self._leave(error)
        if self._reset is not None:
            _CURRENT.reset(self._reset)
            self._reset = None


class Call(Scope):
    """A call of the surface."""

    __slots__ = ()

    def __enter__(self) -> Self:
        from opentelemetry.trace import SpanKind

        self._span = span = self._maker.start(self.name, SpanKind.CLIENT, self.attributes)
        if span is not None and span.get_span_context().is_valid:
            self.cause = Cause(span.get_span_context())
        self._attach(span)
        self._reset = _CURRENT.set(self)
        return self


class Work(Scope):
    """A piece of work off the caller's path."""

    __slots__ = ("_causes", "_verdicts")

    def __init__(self, maker: _Maker, name: str, attributes: Attributes, causes: Sequence[Cause]) -> None:
        super().__init__(maker, name, attributes)
        self._causes: Final = causes
        self._verdicts: set[str] = set()

    def __enter__(self) -> Self:
        from opentelemetry import trace
        from opentelemetry.context import Context

        causes = self._causes
        self.cause = causes[0] if causes else None
        sampled = [each for each in causes if each.sampled]
        if causes and not sampled:
            # Nothing is sampled below this, whichever sampler decides by the parent or by its trace.
            seen = causes[0].context
            silent = trace.SpanContext(seen.trace_id, seen.span_id, is_remote=False, trace_flags=trace.TraceFlags(0))
            self._attach(trace.NonRecordingSpan(silent), Context())
        else:
            links = [trace.Link(each.context) for each in sampled]
            kind = trace.SpanKind.INTERNAL
            self._span = self._maker.start(self.name, kind, self.attributes, context=Context(), links=links)
            self._attach(self._span, Context())
        self._reset = _CURRENT.set(self)
        return self

    def judged(self, verdict: str) -> None:
        """Notes a verdict. A batch may have several: all of them, sorted, with commas."""
        self._verdicts.add(verdict)
        self.mark("shadow.verdict", ",".join(sorted(self._verdicts)))


class Request(_Spanned):
    """A request to a store, for a call or for work."""

    __slots__ = ("_kind", "_role", "_scope", "_store")

    def __init__(self, scope: Scope, store: StoreName, role: Role) -> None:
        super().__init__(scope.maker)
        self._scope = scope
        self._store = store
        self._role = role

    def __enter__(self) -> Self:
        from opentelemetry.trace import SpanKind

        scope = self._scope
        attributes = {**scope.attributes, "db.system.name": _SYSTEMS[self._store], **_sides(self._store, self._role)}
        self._span = self._maker.start(f"{scope.name} on {self._store}", SpanKind.CLIENT, attributes)
        self._attach(self._span)
        scope.open.add(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self._scope.open.discard(self)
        self._leave(error)


_CURRENT: Final[ContextVar[Scope | None]] = ContextVar("shadow_traces", default=None)


def scope() -> Scope | None:
    """The call or the work that runs in this context; None where there is none, or it has ended."""
    found = _CURRENT.get()
    return None if found is None or found.ended else found


def cause() -> Cause | None:
    """What work that is begun now is to be linked to: the call of this context, also where it has ended meanwhile."""
    found = _CURRENT.get()
    return None if found is None else found.cause


class caused:
    """What is begun in the block counts as begun in `by`, which `here` returned: for what may end in another context
    than that of its call, as a generator does that nobody reads to its end."""

    __slots__ = ("_before", "_by")

    def __init__(self, by: Scope | None) -> None:
        self._by = by
        self._before: Token[Scope | None] | None = None

    def __enter__(self) -> None:
        if self._by is not None:
            self._before = _CURRENT.set(self._by)

    def __exit__(self, *exc_info: object) -> None:
        if self._before is not None:
            _CURRENT.reset(self._before)


def here() -> Scope | None:
    """The call or the work of this context, ended or not."""
    return _CURRENT.get()


def current_cause() -> Cause | None:
    """The same for work that is asked for by no call of the surface: whatever span is current."""
    api = sys.modules.get(_API)
    found = cause()
    if found is not None or api is None:
        return found
    context = api.get_current_span().get_span_context()
    return Cause(context) if context.is_valid else None


class Traces:
    """Begins the spans of one `Shadow`. `enabled`: whether there are any; `statements`: whether those of calls have the
    form of the query."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        statements: bool = False,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """`failed` is called with what the application's sampler or span processor raises."""
        self._statements: Final = statements
        self._enabled: Final = enabled
        self._failed: Final = failed
        self._known: tuple[Any, _Maker] | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to trace for."""
        return self._maker() is not None

    def _maker(self) -> _Maker | None:
        """Of the provider that is configured; None while none is."""
        api: Any = sys.modules.get(_API)
        if not self._enabled:
            return None
        if api is None:
            if _PROVIDER not in os.environ:
                return None
            from opentelemetry import trace as api
        try:
            provider = api.get_tracer_provider()
        except Exception as error:  # the environment names one that cannot be loaded
            self._failed(error)
            return None
        known = self._known
        if known is not None and known[0] is provider:
            return known[1]
        if isinstance(provider, api.ProxyTracerProvider):
            return None
        self._known = provider, _Maker(provider.get_tracer("shadow", _version()), self._failed)
        return self._known[1]

    def call(
        self,
        verb: str,
        database: str,
        collection: str,
        store: StoreName,
        given: tuple[Sequence[Any], Mapping[str, Any]] = ((), {}),
    ) -> Call | Untraced:
        """The span of a call, for a `with` block. A call within a call has none of its own. `collection`: "" for the
        end of a transaction; `store`: the primary; `given`: the arguments and options of the call."""
        maker = self._maker()
        if maker is None or isinstance(scope(), Call):
            return UNTRACED
        attributes = {**_described(verb, collection, database), "db.system.name": _SYSTEMS[store]}
        if self._statements:
            attributes["db.query.text"] = statement(verb, *given)
        return Call(maker, f"{verb} {collection}".rstrip(), attributes)

    def request(self, store: StoreName, role: Role = Role.PRIMARY) -> Request | Work | Untraced:
        """The span of a request to a store, for a `with` block in a call or in work."""
        found = _CURRENT.get()
        if found is None:
            return UNTRACED
        if not found.ended:
            return Request(found, store, role) if found.recorded else UNTRACED
        # The caller has gone, and the rest of its write is made nevertheless.
        if found.cause is None:
            return UNTRACED
        attributes = {**found.attributes, "db.system.name": _SYSTEMS[store], **_sides(store, role)}
        return Work(found.maker, f"{found.name} on {store}", attributes, [found.cause])

    def pages(self, store: StoreName, pages: AsyncIterator[T]) -> AsyncIterator[T]:
        """The pages, each as a request of its own: what is current may not be left so while a generator waits."""
        return pages if _CURRENT.get() is None else self._pages(store, pages)

    async def _pages(self, store: StoreName, pages: AsyncIterator[T]) -> AsyncIterator[T]:
        while True:
            with self.request(store):
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    def work(
        self,
        kind: str,
        collection: str,
        causes: Sequence[Cause | None],
        *,
        verb: str = "",
        to: StoreName | None = None,
        attempt: int = 1,
    ) -> Work | Untraced:
        """The span of a piece of work, for a `with` block. `kind`: what it does, as "shadow_read"; `causes`: of each
        call that it is done for, None where that is not known; `to`: the secondary."""
        maker = self._maker()
        if maker is None:
            return UNTRACED
        known = [each for each in causes if each is not None]
        described: dict[str, str | int] = {**_described(verb or kind, collection), "shadow.work": kind}
        described["shadow.attempt"] = attempt
        if len(causes) > 1:
            described["db.operation.batch.size"] = len(causes)
        if to is not None:
            described |= _sides(to, Role.SECONDARY)
        return Work(maker, f"{kind} {collection}", described, known)


def _described(operation: str, collection: str, database: str = "") -> dict[str, str]:
    found = {"db.operation.name": str(operation)}
    named = {"db.collection.name": collection, "db.namespace": database}
    return found | {name: value for name, value in named.items() if value}


def _sides(store: StoreName, role: Role) -> dict[str, str]:
    return {"shadow.store": store.value, "shadow.role": role.value}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("shadow")
    except PackageNotFoundError:
        return ""


NO_TRACES: Final = Traces(enabled=False)
"""Begins no spans."""
