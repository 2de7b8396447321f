"""What every queue promises: a file for each subject, a function for each promise, whose name says what it is."""
