"""The names that the package gives."""

from __future__ import annotations

import pytest

import shadow


def test_every_public_name_is_there() -> None:
    assert set(shadow.__all__) <= set(dir(shadow))
    for name in shadow.__all__:
        assert getattr(shadow, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shadow.nothing
