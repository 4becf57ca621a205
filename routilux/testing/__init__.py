"""Tests for what others build to fit this library. A runner such as pytest runs them; importing them needs none."""

from .conformance import StoreConformance

__all__ = ["StoreConformance"]
