"""What listens to groups while they train, and tells others of it."""
