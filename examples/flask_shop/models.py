"""What the shop stores, as Flask-SQLAlchemy has it declared."""

from __future__ import annotations

from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


class Category(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(60), nullable=False)

    products = db.relationship("Product", back_populates="category", order_by="Product.id")


class Product(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), nullable=False)
    category_id = db.Column(db.ForeignKey("category.id"), nullable=False, index=True)
    price_cents = db.Column(db.Integer, nullable=False)

    category = db.relationship("Category", back_populates="products")


def fill() -> None:
    """Create the tables and put some rows in, unless that was done before."""
    db.create_all()
    if db.session.scalar(db.select(db.func.count()).select_from(Product)):
        return
    for number in range(1, 6):
        products = [
            Product(name=f"product {number}-{each}", price_cents=100 * number + each) for each in range(20)
        ]
        db.session.add(Category(name=f"category {number}", products=products))
    db.session.commit()
