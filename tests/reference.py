"""The published formulation under the name that older tests use."""

from aunce.analyses.published_loss import published_loss as published

__all__ = ["published"]
