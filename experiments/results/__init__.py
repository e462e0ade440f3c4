"""What the algorithms reach on recordings that others published: commands that make the tables kept here."""
