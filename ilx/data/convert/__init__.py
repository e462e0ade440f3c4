"""Importers: recordings that other projects made, turned into RLDS datasets."""

from ilx.data.convert import npz

__all__ = ["npz"]
