"""What the nodes of a traced module are: tables, columns and views of them, and their shapes."""
