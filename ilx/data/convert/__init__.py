"""Importers: recordings that other projects made, turned into RLDS datasets."""
