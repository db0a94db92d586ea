"""The semantics of filters, updates, projections and pipelines over plain documents, as in MongoDB 6.0.

Pure code: values in, values out. Everything is compiled once to closures. Operators without exactly MongoDB's result
are refused (`shadow.errors.UnsupportedOperation`); `support.TABLE` lists which.
"""

from __future__ import annotations

from shadow.mongoql.caching import cached_filter, cached_pipeline, cached_projection, cached_update
from shadow.mongoql.expressions.expressions import compile_expression
from shadow.mongoql.match.filters import Filter, compile_filter
from shadow.mongoql.match.tree import And, Leaf, Node, Nor, Not, Or
from shadow.mongoql.pipeline.pipelines import Pipeline, compile_pipeline
from shadow.mongoql.pipeline.projections import Projection, compile_projection
from shadow.mongoql.update.updates import Updater, compile_update

__all__ = [
    "And",
    "Filter",
    "Leaf",
    "Node",
    "Nor",
    "Not",
    "Or",
    "Pipeline",
    "Projection",
    "Updater",
    "cached_filter",
    "cached_pipeline",
    "cached_projection",
    "cached_update",
    "compile_expression",
    "compile_filter",
    "compile_pipeline",
    "compile_projection",
    "compile_update",
]
