"""What a person looks at: drawings, tables and the report."""
