#!/bin/sh
# A handler as a shell script: the key comes as JSON on stdin, the exit code says what became of it.
# dispatcher serve --command examples/routing/handle.sh
document=$(cat)
case "$document" in
*'"key": "broken'*) echo "it is broken" >&2; exit 75 ;; # try again
*'"key": "gone'*) echo "there is no such thing" >&2; exit 65 ;; # drop
esac
echo "handled $document" >&2
