"""On SQLAlchemy 1.4, a Connection not of 2.0's kind takes ``execute(..., execution_options=...)`` for parameters.

The sync front met such engines first. The statement that reads old values back warned of a deprecated call there, and
went without the option that marks it as the cache's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, select, update
from sqlalchemy.orm import Session

from sqlacache import configure_sync
from tests.support.models import Base, User


def test_old_values_are_read_back_without_a_warning_and_marked_as_the_caches_own(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.sqlite")
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        session.add(User(id=1, name="Ada", email="ada@x"))
        session.commit()
    cache = configure_sync(models={"*": {"timeout": 60}}, telemetry=None)
    with cache.bound(engine):
        with Session(engine, future=True) as session:
            session.execute(select(User).where(User.plan == "free")).all()
        marked = []

        @event.listens_for(engine, "before_cursor_execute")
        def ran(*given: Any) -> None:
            if given[4] is not None and given[4].execution_options.get("sqlacache_read_back"):
                marked.append(given[2])

        with Session(engine, future=True) as session:
            options = {"synchronize_session": False}
            session.execute(update(User).where(User.id == 1).values(plan="paid"), execution_options=options)
            session.commit()
    engine.dispose()
    assert [statement.split()[0] for statement in marked] == ["SELECT"]
