"""What becomes of what is received: pure, and the same live and in replay."""
