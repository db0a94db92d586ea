"""What filters, updates, projections and pipelines mean, over plain documents, as MongoDB 6.0 means them.

Pure code: values in, values out. Everything is compiled once to closures. What is not exactly MongoDB's is refused by
name (`shadow.errors.UnsupportedOperation`); `support.TABLE` says which.
"""

from __future__ import annotations

from shadow.model.matching.expressions import compile_expression
from shadow.model.matching.filters import Filter, cached_filter, compile_filter
from shadow.model.matching.pipelines import Pipeline, compile_pipeline
from shadow.model.matching.projections import Projection, compile_projection
from shadow.model.matching.tree import And, Leaf, Node, Nor, Not, Or
from shadow.model.matching.updates import Updater, compile_update

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
    "compile_expression",
    "compile_filter",
    "compile_pipeline",
    "compile_projection",
    "compile_update",
]
