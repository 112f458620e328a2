"""What a GPU asks for: streams, copies, the precision of its products."""
