"""What each test protects is its name."""
