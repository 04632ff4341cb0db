"""Results made comparable: what a read returned, with its types, and nothing of the session it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm.state import InstanceState


def plain(value: Any, _path: tuple[Any, ...] = ()) -> Any:
    """Turn rows, entities and containers into nested tuples and dicts that compare equal only when types agree.

    An entity becomes its class and everything loaded on it, relationships included, so that two reads which differ in
    what they loaded differ here.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item, _path) for key, item in value.items()}
    if isinstance(value, (list, set, tuple)):
        kind = (
            "list" if isinstance(value, list) else type(value).__name__ if isinstance(value, set) else "tuple"
        )
        return (kind, *(plain(item, _path) for item in value))
    state = _instance_state(value)
    if state is None:
        return (type(value).__name__, value)
    if value in _path:
        return (type(value).__name__, state.identity)
    loaded = {key: item for key, item in state.dict.items() if key != "_sa_instance_state"}
    return (type(value).__name__, {key: plain(item, (*_path, value)) for key, item in sorted(loaded.items())})


def _instance_state(value: Any) -> InstanceState[Any] | None:
    try:
        state = inspect(value)
    except NoInspectionAvailable:
        return None
    return state if isinstance(state, InstanceState) else None
