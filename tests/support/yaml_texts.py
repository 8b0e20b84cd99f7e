"""Texts in YAML that no reader should take at their word."""

from __future__ import annotations


def alias_bomb() -> str:
    """Return some 300 bytes that mean a thousand million words."""
    lines = ["a: &a [" + ",".join("x" * 10) + "]"]
    lines += [
        f"{to}: &{to} [{','.join([f'*{of}'] * 10)}]" for of, to in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(lines)


__all__ = ["alias_bomb"]
