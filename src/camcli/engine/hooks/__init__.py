"""What is seen or changed while a network runs; each restores it."""
