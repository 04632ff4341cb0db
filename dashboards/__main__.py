"""``python -m dashboards``: write the dashboard and the rules."""

from __future__ import annotations

from . import files

if __name__ == "__main__":
    for path, text in files.made().items():
        path.write_text(text)
        print(path.relative_to(files.ROOT))
