"""Writes docs/registers.md."""

from pathlib import Path

from sliceforge.gen.register_page import register_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "registers.md"

if __name__ == "__main__":
    PAGE.write_text(register_page(), encoding="utf-8")
