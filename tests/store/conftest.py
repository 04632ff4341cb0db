"""Failures of the contract's clauses tell what was compared."""

from __future__ import annotations

import sys

import pytest

if "sqlacache.testing.contract" not in sys.modules:
    pytest.register_assert_rewrite("sqlacache.testing.contract")
