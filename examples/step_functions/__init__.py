"""Tasks of AWS Step Functions, handled by typed functions and answered by a replier. See README.md."""
