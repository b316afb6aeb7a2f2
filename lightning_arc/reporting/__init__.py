"""Output for people: drawings, tables and the report."""
