"""What is in use is told apart from what allocators keep."""

from __future__ import annotations

import gc

import pytest

from tests.leaks.allocators import MB, of_allocators


@pytest.mark.parametrize(
    ("of", "size"), [("Python", 400), ("malloc", 4_000)], ids=["small objects", "large objects"]
)
def test_what_is_dropped_is_no_longer_in_use_whatever_becomes_of_its_memory(of: str, size: int) -> None:
    if not of_allocators():
        pytest.skip("the C library does not tell")
    gc.collect()
    before = of_allocators()
    kept = [bytes(size) for _ in range(20 * MB // size)]
    full = of_allocators()
    del kept[::2]
    half = of_allocators()
    kept.clear()
    after = of_allocators()
    used = f"used memory of {of}"
    assert full[used] - before[used] > 19
    assert full["used memory"] - before["used memory"] > 19
    assert 8 < half[used] - before[used] < 12
    assert half[f"free memory of {of}"] - full[f"free memory of {of}"] > 8  # every page is still needed
    assert after[used] - before[used] < 2
