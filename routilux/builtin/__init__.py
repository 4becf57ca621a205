"""Routines for what flows do again and again.

Each takes one parameter of the payload, ``value`` unless it is told another, and passes the others along, so that they
can be connected to one another as they are.
"""

from .aggregate import Aggregate
from .batch import Batch
from .collect import Collect
from .filter import Filter
from .map import Map
from .router import Router
from .split import Split
from .validate import Validate

__all__ = ["Aggregate", "Batch", "Collect", "Filter", "Map", "Router", "Split", "Validate"]
