"""Stage 4: several dispatchers on one bucket, which know of each other only by what they see in it.

`peers` says who else is there and who takes which key first; `slots` hold an exact limit.
"""
