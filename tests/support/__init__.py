"""What the tests stand on: real databases, models, and readers that assert how a read was answered."""
