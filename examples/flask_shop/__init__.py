"""A shop on Flask and Flask-SQLAlchemy: sync sessions, threads, worker processes.

Read :func:`examples.flask_shop.app.create_app` for the lines that bring the cache in.
"""
