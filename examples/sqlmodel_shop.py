"""SQLModel with FastAPI, in both ways its users write it: async sessions, and the ordinary ones of its tutorial.

``uvicorn --factory examples.sqlmodel_shop:create_app`` and ``...:create_sync_app``, on the SQLite file that ``HEROES``
names. The pages are plain SQLModel; each factory brings its cache in by its lifespan. (No postponed annotations here:
SQLModel reads those of relationships when the class is made.)
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Optional

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from prometheus_client import make_asgi_app
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import selectinload
from sqlmodel import Field, Relationship, Session, SQLModel, col, create_engine, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlacache import configure, configure_sync

FILE = os.environ.get("HEROES", "heroes.sqlite")


class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str

    heroes: list["Hero"] = Relationship(back_populates="team")


class HeroBase(SQLModel):
    name: str = Field(index=True)
    age: int | None = None
    team_id: int | None = Field(default=None, foreign_key="team.id")


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)

    team: Optional["Team"] = Relationship(back_populates="heroes")


class HeroPublic(HeroBase):
    id: int


class TeamPublic(SQLModel):
    id: int
    name: str
    heroes: list[HeroPublic]


class Age(SQLModel):
    age: int


MODELS: dict[Any, Any] = {Hero: {"timeout": 600}, "*": {"timeout": 3600}}


def fill(connection: Any) -> None:
    """Create the tables, and a team to join."""
    SQLModel.metadata.create_all(connection)
    if connection.scalar(select(func.count()).select_from(Team)) == 0:
        connection.execute(insert(Team).values(name="Reserves"))


def of_team(team_id: int) -> Any:
    return select(Team).where(Team.id == team_id).options(selectinload(Team.heroes))  # type: ignore[arg-type]  # typed as a list


def older_than(age: int) -> Any:
    return select(func.count()).select_from(Hero).where(col(Hero.age) > age)


def found(row: Any) -> Any:
    if row is None:
        raise HTTPException(404)
    return row


# --- async sessions ------------------------------------------------------------------------------------------------

pages = APIRouter()


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.app.state.engine, expire_on_commit=False) as session:
        yield session


AsyncDep = Annotated[AsyncSession, Depends(open_session)]


@pages.get("/heroes/{hero_id}", response_model=HeroPublic)
async def hero(hero_id: int, session: AsyncDep) -> Any:
    return found(await session.get(Hero, hero_id))


@pages.get("/teams/{team_id}", response_model=TeamPublic)
async def team(team_id: int, session: AsyncDep) -> Any:
    return found((await session.exec(of_team(team_id))).one_or_none())


@pages.get("/older/{age}")
async def older(age: int, session: AsyncDep) -> int:
    return (await session.exec(older_than(age))).one()


@pages.post("/heroes", response_model=HeroPublic, status_code=201)
async def add(wanted: HeroBase, session: AsyncDep) -> Any:
    row = Hero.model_validate(wanted)
    session.add(row)
    await session.commit()
    return row


@pages.patch("/heroes/{hero_id}", response_model=HeroPublic)
async def change(hero_id: int, wanted: Age, session: AsyncDep) -> Any:
    row = found(await session.get(Hero, hero_id))
    row.sqlmodel_update(wanted)
    await session.commit()
    return row


def create_app() -> FastAPI:
    cache = configure(backend="mem://", models=MODELS, prefix="heroes")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = app.state.engine = create_async_engine(f"sqlite+aiosqlite:///{FILE}")
        async with engine.begin() as connection:
            await connection.run_sync(fill)
        try:
            async with cache.lifespan(engine)(app):
                yield
        finally:
            await engine.dispose()

    return _with_metrics(FastAPI(lifespan=lifespan), pages)


# --- ordinary sessions, in FastAPI's threads -----------------------------------------------------------------------

sync_pages = APIRouter()


def open_sync_session(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine) as session:
        yield session


SyncDep = Annotated[Session, Depends(open_sync_session)]


@sync_pages.get("/heroes/{hero_id}", response_model=HeroPublic)
def sync_hero(hero_id: int, session: SyncDep) -> Any:
    return found(session.get(Hero, hero_id))


@sync_pages.get("/teams/{team_id}", response_model=TeamPublic)
def sync_team(team_id: int, session: SyncDep) -> Any:
    return found(session.exec(of_team(team_id)).one_or_none())


@sync_pages.get("/older/{age}")
def sync_older(age: int, session: SyncDep) -> int:
    return session.exec(older_than(age)).one()


@sync_pages.post("/heroes", response_model=HeroPublic, status_code=201)
def sync_add(wanted: HeroBase, session: SyncDep) -> Any:
    row = Hero.model_validate(wanted)
    session.add(row)
    session.commit()
    session.refresh(row)
    return row


@sync_pages.patch("/heroes/{hero_id}", response_model=HeroPublic)
def sync_change(hero_id: int, wanted: Age, session: SyncDep) -> Any:
    row = found(session.get(Hero, hero_id))
    row.sqlmodel_update(wanted)
    session.commit()
    session.refresh(row)
    return row


def create_sync_app() -> FastAPI:
    cache = configure_sync(backend="mem://", models=MODELS, prefix="heroes")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = app.state.engine = create_engine(f"sqlite:///{FILE}")
        with engine.begin() as connection:
            fill(connection)
        with cache.bound(engine):
            yield
        engine.dispose()

    return _with_metrics(FastAPI(lifespan=lifespan), sync_pages)


def _with_metrics(app: FastAPI, router: APIRouter) -> FastAPI:
    app.include_router(router)
    app.mount("/metrics", make_asgi_app())
    return app
