"""Stage 7: what others see of the counting: the exposition of a scrape, gauges, and spans.

Counting itself is in `workqueue.metrics`, since every backend does it. Read `exposition` first.
"""
