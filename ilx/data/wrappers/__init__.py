"""Environments that record what is played in them: ``gymnasium.RecordEpisodes`` and ``dm_env.RecordEpisodes``.

Each module imports its library, so neither is imported here.
"""
