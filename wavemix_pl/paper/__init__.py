"""The paper's tables: their rows as data, the commands that reproduce them, and what came out."""
