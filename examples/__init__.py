"""Programs to read and run; tests run every one of them."""
