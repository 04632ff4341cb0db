"""What the user says, checked: :class:`Settings` is the valid form of ``configure()``'s arguments.

Wrong configuration never becomes a silently uncached model: whatever cannot be understood is a
:class:`~sqlacache.errors.ConfigError` that names the key, what it got (secrets masked) and what it takes.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.schema import Table

from .backend import Backend, Seconds, check_backend, seconds, size
from .decisions import MODES, OPS, Mode, Op
from .digests import LEAST_KEY, Digests
from .errors import ConfigError
from .observers import Observer
from .store.codec import Codec, get_codec

_MODEL_KEYS = ("ops", "timeout", "exclude")


@dataclass(frozen=True)
class Policy:
    """What is cached of a statement's tables: the strictest of what their models say."""

    ops: frozenset[Op]
    timeout: float
    """Seconds."""
    off: bool = False
    """A model among them is never cached (``None`` in ``models``)."""


OFF = Policy(frozenset(), 0.0, off=True)


@dataclass(frozen=True)
class _Rule:
    ops: frozenset[Op]
    timeout: float
    exclude: frozenset[str] = frozenset()
    """Attributes or columns of which nothing is stored."""


@dataclass
class Settings:
    """Checked configuration of one cache; see :func:`sqlacache.configure` for the meaning of each."""

    name: str
    prefix: str
    backend: Backend
    mode: Mode
    default_timeout: float
    jitter: float
    codec: Codec
    vary: Callable[[Session], Any] | None
    functions: frozenset[str]
    depends_on: Mapping[str, tuple[str, ...]]
    writes_also: Mapping[str, tuple[str, ...]]
    relaxed_isolation: bool
    old_values: str
    max_entry_bytes: int
    lease: float
    on_error: str
    observers: tuple[Observer, ...]
    history: int
    """Decisions that are remembered."""
    verify: float
    """Fraction of hits that are compared with the database."""
    expose_values: bool
    """Values are shown in names as they are."""
    digests: Digests = field(repr=False)
    """What stands for values in names otherwise."""
    debug: bool
    """Whether decisions and causes are given call sites and parameters."""
    models: Mapping[Any, Any] = field(default_factory=dict)
    _rules: dict[type, _Rule | None] = field(default_factory=dict)
    _fallback: _Rule | None = None
    _mappers: Callable[[Table], Sequence[Mapper[Any]]] = field(default=lambda table: ())

    def resolve(
        self,
        mappers: Callable[[Table], Sequence[Mapper[Any]]],
        is_mapped: Callable[[type], bool],
        mapped: Callable[[], Iterable[Mapper[Any]]] = tuple,
    ) -> None:
        """Import the models named by path and check that each is mapped, and has the columns that are excluded.

        ``mapped`` returns every mapper there is. Raises :class:`ConfigError`.
        """
        self._mappers = mappers
        self._rules.clear()
        self._fallback = None
        named: dict[type, Any] = {}
        for name, given in self.models.items():
            rule = _rule(name, given, self.default_timeout)
            if name == "*":
                self._fallback = rule
                if rule is not None:
                    check_excluded(f"models[{_called(name)}]", rule.exclude, mapped(), "mapped classes")
                continue
            model = name if isinstance(name, type) else _import_model(name, final=True)
            assert model is not None  # final: an error was raised otherwise
            if not is_mapped(model) and not any(is_mapped(below) for below in _all_subclasses(model)):
                raise ConfigError(
                    f"models[{_called(name)}]: takes a mapped class, got {model!r}, which is not mapped"
                )
            if model in named:
                other = _called(named[model])
                raise ConfigError(
                    f"models[{_called(name)}]: takes each class once, got {model!r} also as models[{other}]"
                )
            named[model] = name
            self._rules[model] = rule
            if rule is not None:
                check_excluded(f"models[{_called(name)}]", rule.exclude, _mappers_of(model), model.__name__)

    def policy(self, tables: Iterable[Table]) -> Policy:
        """Return the strictest policy of the models mapped to ``tables``."""
        ops, timeout, mapped = frozenset(OPS), float("inf"), False
        for table in tables:
            for mapper in self._mappers(table):
                mapped = True
                known, rule = self._rule_of(mapper.class_)
                if not known:
                    return Policy(frozenset(), self.default_timeout)
                if rule is None:
                    return OFF
                ops &= rule.ops
                timeout = min(timeout, rule.timeout)
        if (
            not mapped
        ):  # tables without a class, such as a many-to-many's by itself: only execute() caches those
            return Policy(frozenset(), self.default_timeout)
        return Policy(ops, timeout)

    def excluded(self, table: Table) -> frozenset[str]:
        """Return the database names of the columns of ``table`` of which nothing may be stored.

        What one class excludes is excluded for all that are mapped to the table, whatever else is said of them.
        """
        if not any(rule is not None and rule.exclude for rule in (*self._rules.values(), self._fallback)):
            return frozenset()
        found: set[str] = set()
        for mapper in self._mappers(table):
            rules = [self._rules.get(base) for base in mapper.class_.__mro__]
            names = {name for rule in (*rules, self._fallback) if rule is not None for name in rule.exclude}
            if names:
                found.update(column.name for column in table.columns if names & names_of(mapper, column))
        return frozenset(found)

    def _rule_of(self, model: type) -> tuple[bool, _Rule | None]:
        for base in model.__mro__:
            if base in self._rules:
                return True, self._rules[base]
        return "*" in self.models, self._fallback

    def seconds(self, given: Any, default: float) -> float:
        """Return a timeout given with one execution, in seconds. Raises :class:`ConfigError`."""
        return default if given is None else seconds("sqlacache_timeout", given)

    def jittered(self, timeout: float) -> float:
        """Return ``timeout`` shortened by a random part of at most ``jitter`` of it."""
        return timeout * (1 - self.jitter * random.random()) if self.jitter else timeout

    @property
    def stamp_ttl(self) -> float:
        """Seconds that a stamp lives at least: longer than any entry filled under it."""
        rules = [rule.timeout for rule in (*self._rules.values(), self._fallback) if rule is not None]
        return max([self.default_timeout, *rules]) + self.lease


def settings(
    *,
    backend: str | Mapping[str, Any],
    models: Mapping[Any, Any] | None,
    prefix: str,
    default_timeout: Seconds,
    serializer: str | Codec,
    name: str | None,
    mode: str,
    vary: Callable[[Session], Any] | None,
    jitter: float,
    functions: Collection[str],
    depends_on: Mapping[str, Collection[str]] | None,
    writes_also: Mapping[str, Collection[str]] | None,
    isolation: str,
    old_values: str,
    max_entry_bytes: int,
    max_bytes: int | None,
    lease: Seconds,
    on_error: str,
    local: str | None,
    observers: Iterable[Observer],
    history: int | None,
    verify: float,
    debug: bool = False,
    expose_values: bool = False,
    digest_key: str | None = None,
) -> Settings:
    """Check ``configure()``'s arguments. Raises :class:`ConfigError`."""
    check_name("prefix", prefix)
    if name is not None:
        check_name("name", name)
    timeout = seconds("default_timeout", default_timeout)
    mode_key, mode = _environment("SQLACACHE_MODE", "mode", mode)
    if mode not in MODES:
        raise ConfigError(f"{mode_key}: takes one of {', '.join(MODES)}, got {mode!r}")
    if isolation not in ("strict", "relaxed"):
        raise ConfigError(f"isolation: takes 'strict' or 'relaxed', got {isolation!r}")
    if old_values not in ("read", "widen"):
        raise ConfigError(f"old_values: takes 'read' or 'widen', got {old_values!r}")
    if vary is not None and not callable(vary):
        raise ConfigError(f"vary: takes a function of a session, got {vary!r}")
    if on_error not in ("bypass", "raise"):
        raise ConfigError(f"on_error: takes 'bypass' or 'raise', got {on_error!r}")
    checked_backend = check_backend(*_environment("SQLACACHE_BACKEND", "backend", backend), local)
    if max_bytes is not None:
        checked_backend = replace(checked_backend, max_bytes=size("max_bytes", max_bytes))
    if not isinstance(observers, Iterable):
        raise ConfigError(f"observers: takes instances of sqlacache.Observer, got {observers!r}")
    watching = tuple(observers)
    for observer in watching:
        if not isinstance(observer, Observer):
            raise ConfigError(f"observers: takes instances of sqlacache.Observer, got {observer!r}")
    if history is not None and history != 0:
        size("history", history, "decisions")
    if not isinstance(debug, bool):
        raise ConfigError(f"debug: takes True or False, got {debug!r}")
    if not isinstance(expose_values, bool):
        raise ConfigError(f"expose_values: takes True or False, got {expose_values!r}")
    given = {} if models is None else models
    if not isinstance(given, Mapping):
        raise ConfigError(f"models: takes a mapping of models to their settings, got {type(given).__name__}")
    for model, value in given.items():
        _rule(model, value, timeout)
        if isinstance(model, str) and model != "*":
            _import_model(model, final=False)
        elif not isinstance(model, (str, type)):
            raise ConfigError(f"models: keys are classes, dotted paths or '*', got {model!r}")
    return Settings(
        name=name or prefix,
        prefix=prefix,
        backend=checked_backend,
        mode=mode,
        default_timeout=timeout,
        jitter=_fraction("jitter", jitter),
        codec=get_codec(serializer),
        vary=vary,
        functions=frozenset(name.lower() for name in _names("functions", functions)),
        depends_on=_relations("depends_on", depends_on),
        writes_also=_relations("writes_also", writes_also),
        relaxed_isolation=isolation == "relaxed",
        old_values=old_values,
        max_entry_bytes=size("max_entry_bytes", max_entry_bytes),
        lease=seconds("lease", lease),
        on_error=on_error,
        observers=watching,
        history=history or 0,
        verify=_fraction("verify", verify, whole=True),
        debug=debug,
        expose_values=expose_values,
        digests=Digests(
            prefix,
            check_digest_key(*_environment("SQLACACHE_DIGEST_KEY", "digest_key", digest_key)),
            exposed=expose_values,
        ),
        models=dict(given),
    )


def _environment(variable: str, key: str, given: Any) -> tuple[str, Any]:
    """Return what to call a value in messages, and the value: the environment's, if it has one."""
    found = os.environ.get(variable)
    return (f"{key} (from {variable})", found) if found else (key, given)


def _rule(name: Any, given: Any, default_timeout: float) -> _Rule | None:
    where = f"models[{_called(name)}]"
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: takes a mapping of {', '.join(_MODEL_KEYS)}, or None, got {given!r}")
    unknown = sorted(str(key) for key in given if key not in _MODEL_KEYS)
    if unknown:
        raise ConfigError(f"{where}[{unknown[0]!r}]: not known; a model takes {', '.join(_MODEL_KEYS)}")
    exclude = frozenset(_names(f"{where}['exclude']", given.get("exclude", ())))
    timeout = seconds(f"{where}['timeout']", given["timeout"]) if "timeout" in given else default_timeout
    ops = given.get("ops", "all")
    if ops == "all":
        return _Rule(frozenset(OPS), timeout, exclude)
    takes = f"takes 'all' or any of {', '.join(OPS)}"
    if isinstance(ops, str) or not isinstance(ops, Iterable):
        raise ConfigError(f"{where}['ops']: {takes}, got {ops!r}")
    chosen = list(ops)
    for op in chosen:
        if op not in OPS:
            raise ConfigError(f"{where}['ops']: {takes}, got {op!r} among them")
    return _Rule(frozenset(chosen), timeout, exclude)


def _import_model(path: str, *, final: bool) -> type | None:
    """Import a class by dotted path; before ``final``, one whose module is being imported right now may wait."""
    module_name, _, attribute = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(f"models[{path!r}]: takes a dotted path such as 'app.models.User', a class, or '*'")
    try:
        module = import_module(module_name)
        model = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        loading = getattr(getattr(sys.modules.get(module_name), "__spec__", None), "_initializing", False)
        if loading and not final:
            return None
        raise ConfigError(f"models[{path!r}]: cannot be imported: {error}") from error
    except Exception as error:  # whatever the module itself raises while it is being imported
        raise ConfigError(f"models[{path!r}]: cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(model, type):
        raise ConfigError(f"models[{path!r}]: takes a mapped class, got {model!r}")
    return model


def check_excluded(where: str, exclude: Collection[str], mappers: Iterable[Mapper[Any]], called: str) -> None:
    """Check that each name is that of a column there, and of no primary key. Raises :class:`ConfigError`."""
    known: set[str] = set()
    keys: set[str] = set()
    for mapper in mappers if exclude else ():
        for table in mapper.tables:
            for column in table.columns:
                names = names_of(mapper, column)
                known |= names
                if column.primary_key:
                    keys |= names
    for name in sorted(exclude):
        if name not in known:
            few = (
                sorted(known)
                if len(known) <= 50
                else get_close_matches(name, known, 10) or sorted(known)[:10]
            )
            has = ", ".join(few) + (", ..." if len(few) < len(known) else "")
            raise ConfigError(f"{where}['exclude']: takes columns of {called} ({has}), got {name!r}")
        if name in keys:
            raise ConfigError(
                f"{where}['exclude']: {name!r} is a part of the primary key, which every read of the class uses; "
                "to cache nothing of it, give None for the class"
            )


def names_of(mapper: Mapper[Any], column: Any) -> set[str]:
    """Return what a column is called: in the database, in its table, and as an attribute."""
    names = {column.name, column.key}
    with suppress(UnmappedColumnError):
        names.add(mapper.get_property_by_column(column).key)
    return names


def _mappers_of(model: type) -> list[Mapper[Any]]:
    """Return the mappers of a class and of those below it."""
    found = []
    for one in dict.fromkeys([model, *_all_subclasses(model)]):
        with suppress(NoInspectionAvailable):
            mapper: Any = inspect(one)
            if isinstance(mapper, Mapper):
                found.append(mapper)
    return found


def check_digest_key(where: str, given: Any) -> str | None:
    """Check the key of digests. Raises :class:`ConfigError`, without the key."""
    if given is None or (isinstance(given, str) and len(given) >= LEAST_KEY):
        return given
    got = f"{len(given)} characters" if isinstance(given, str) else type(given).__name__
    raise ConfigError(
        f"{where}: takes a secret text of {LEAST_KEY} characters or more, such as secrets.token_hex() makes, got {got}"
    )


def _called(name: Any) -> str:
    return name.__qualname__ if isinstance(name, type) else repr(name)


def _all_subclasses(model: Any) -> list[type]:
    found: list[type] = []
    for below in model.__subclasses__():
        found += [below, *_all_subclasses(below)]
    return found


def _fraction(where: str, given: Any, *, whole: bool = False) -> float:
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not is_number or not 0 <= given <= 1 or (given == 1 and not whole):
        up_to = "1" if whole else "(not including) 1"
        raise ConfigError(f"{where}: takes a fraction from 0 up to {up_to}, got {given!r}")
    return float(given)


def check_name(where: str, given: Any) -> None:
    if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", given):
        raise ConfigError(f"{where}: takes 1 to 64 letters, digits, '_', '.', ':' or '-', got {given!r}")


def _names(where: str, given: Any) -> tuple[str, ...]:
    if (
        isinstance(given, str)
        or not isinstance(given, Collection)
        or not all(isinstance(x, str) for x in given)
    ):
        raise ConfigError(f"{where}: takes a collection of names, got {given!r}")
    return tuple(given)


def _relations(where: str, given: Any) -> dict[str, tuple[str, ...]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: takes a mapping of a name to names, got {given!r}")
    return {str(name): _names(f"{where}[{name!r}]", names) for name, names in given.items()}
