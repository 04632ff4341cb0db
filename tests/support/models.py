"""The mapped classes of the tests, in the style that SQLAlchemy 1.4, 2.0 and 2.1 share."""

from __future__ import annotations

import enum

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
)
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()


class Role(enum.Enum):
    """Who a user is; its names and values differ, so that a mix-up shows."""

    MEMBER = "m"
    ADMIN = "a"


user_tags = Table(
    "user_tags",
    Base.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Team(Base):
    __tablename__ = "teams"

    id = Column(Integer, primary_key=True)
    name = Column(String(40), nullable=False)

    members = relationship("User", back_populates="team", order_by="User.id")


class User(Base):
    __tablename__ = "users"

    id = Column(Integer, primary_key=True)
    name = Column(String(40), nullable=False)
    email = Column(String(80), nullable=False, unique=True)
    active = Column(Boolean, nullable=False, default=True)
    plan = Column(String(10), nullable=False, default="free")
    last_seen = Column(DateTime)
    balance = Column(Numeric(10, 2), nullable=False, default=0)
    profile = Column(JSON(none_as_null=True))
    role = Column(Enum(Role, name="user_role"), nullable=False, default=Role.MEMBER)
    avatar = Column(LargeBinary)
    team_id = Column(ForeignKey("teams.id"))

    team = relationship("Team", back_populates="members")
    orders = relationship("Order", back_populates="user", order_by="Order.id")
    tags = relationship("Tag", secondary=user_tags, back_populates="users", order_by="Tag.id")


class Order(Base):
    __tablename__ = "orders"

    id = Column(Integer, primary_key=True)
    user_id = Column(ForeignKey("users.id"), nullable=False)
    status = Column(String(10), nullable=False, default="new")
    total = Column(Numeric(10, 2), nullable=False, default=0)
    created = Column(DateTime, nullable=False)

    user = relationship("User", back_populates="orders")
    lines = relationship(
        "OrderLine", back_populates="order", order_by="OrderLine.id", cascade="all, delete-orphan"
    )


class OrderLine(Base):
    __tablename__ = "order_lines"

    id = Column(Integer, primary_key=True)
    order_id = Column(ForeignKey("orders.id"), nullable=False)
    product = Column(String(40), nullable=False)
    quantity = Column(Integer, nullable=False, default=1)

    order = relationship("Order", back_populates="lines")


class Tag(Base):
    __tablename__ = "tags"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False, unique=True)

    users = relationship("User", secondary=user_tags, back_populates="tags", order_by="User.id")


class Stock(Base):
    """A composite primary key, its parts written in another order than the name suggests."""

    __tablename__ = "stock"

    warehouse = Column(String(10), primary_key=True)
    sku = Column(Integer, primary_key=True, autoincrement=False)
    quantity = Column(Integer, nullable=False)


class Article(Base):
    """Its author comes along by a join that the mapping asks for."""

    __tablename__ = "articles"

    id = Column(Integer, primary_key=True)
    title = Column(String(40), nullable=False)
    author_id = Column(ForeignKey("users.id"), nullable=False)

    author = relationship("User", lazy="joined")


class Gallery(Base):
    """Its pictures come along by a second select that the mapping asks for."""

    __tablename__ = "galleries"

    id = Column(Integer, primary_key=True)
    title = Column(String(40), nullable=False)

    pictures = relationship("Picture", lazy="selectin", order_by="Picture.id")


class Picture(Base):
    __tablename__ = "pictures"

    id = Column(Integer, primary_key=True)
    gallery_id = Column(ForeignKey("galleries.id"), nullable=False)
    caption = Column(String(40), nullable=False)


class Employee(Base):
    """Joined inheritance: a manager has a row here and one in ``managers``."""

    __tablename__ = "employees"

    id = Column(Integer, primary_key=True)
    name = Column(String(40), nullable=False)
    kind = Column(String(10), nullable=False)

    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "employee"}  # noqa: RUF012


class Manager(Employee):
    __tablename__ = "managers"

    id = Column(ForeignKey("employees.id"), primary_key=True)
    budget = Column(Integer, nullable=False)

    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012


class Payment(Base):
    """Single-table inheritance: a card payment is a row of ``payments`` like any other."""

    __tablename__ = "payments"

    id = Column(Integer, primary_key=True)
    method = Column(String(10), nullable=False)
    amount = Column(Integer, nullable=False)

    __mapper_args__ = {"polymorphic_on": method, "polymorphic_identity": "cash"}  # noqa: RUF012


class CardPayment(Payment):
    card = Column(String(20))

    __mapper_args__ = {"polymorphic_identity": "card"}  # noqa: RUF012


class AuditLog(Base):
    """Never cached: the tests' configuration opts it out."""

    __tablename__ = "audit_log"

    id = Column(Integer, primary_key=True)
    message = Column(String(80), nullable=False)
