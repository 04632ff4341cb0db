"""Classes whose keys and columns are nobody's business."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Integer, String
from sqlalchemy.orm import declarative_base, deferred, relationship

Base = declarative_base()


class Person(Base):
    __tablename__ = "people"

    email = Column(String(80), primary_key=True)
    nick = Column(String(80))
    age = Column(Integer)
    active = Column(Boolean)
    secret = Column(String(80))

    tickets = relationship("Ticket", back_populates="person", order_by="Ticket.id")


class Seat(Base):
    __tablename__ = "seats"

    hall = Column(Integer, primary_key=True)
    holder = Column(String(80), primary_key=True)
    row = Column(Integer)


class Ticket(Base):
    __tablename__ = "tickets"

    id = Column(Integer, primary_key=True)
    owner = Column(ForeignKey("people.email"))
    code = Column(Integer)
    note = deferred(Column("remark", String(80)))

    person = relationship("Person", back_populates="tickets")
