"""What `helm test` runs: each queue takes a key, completes it, and shows metrics; an exit code of 1 says what did not.

Usage: round_trip.py KEY SECONDS RECEIVER METRICS [RECEIVER METRICS …] [-- FLAGS OF workqueue]
An empty METRICS is not read.
"""

import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request


def main(key: str, seconds: str, *rest: str) -> None:
    """See `key` through each queue within N seconds."""
    addresses, flags = rest, []
    if "--" in rest:
        addresses, flags = rest[: rest.index("--")], list(rest[rest.index("--") + 1 :])
    until = time.monotonic() + float(seconds)
    for receiver, metrics in zip(addresses[::2], addresses[1::2], strict=True):
        workqueue("enqueue", key, "--queue", receiver, *flags)
        print(f"{receiver} took {key}", flush=True)
        while workqueue("get", key, "--queue", receiver, *flags, known=(0, 1)) == 0:
            if time.monotonic() > until:
                sys.exit(f"{receiver}: {key} was not completed within {seconds} s; does a dispatcher run?")
            time.sleep(0.5)
        print(f"{receiver} completed {key}", flush=True)
        if metrics:
            scrape(metrics, until)


def workqueue(*arguments: str, known: tuple[int, ...] = (0,)) -> int:
    """Run a command of `workqueue`; an exit code that is not known ends the test."""
    done = subprocess.run(["workqueue", *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in known:
        sys.exit(f"workqueue {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
    return done.returncode


def scrape(url: str, until: float) -> None:
    """Read the metrics of a server; those that ask for a token or a certificate count as there."""
    anyone = ssl._create_unverified_context()  # the CA is the flags' business; here the question is who answers
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10, context=anyone) as answer:
                found = "workqueue_" in answer.read().decode()
        except urllib.error.HTTPError as error:
            found = error.code == 401
        except OSError:
            found = False
        if found:
            print(f"{url} shows metrics", flush=True)
            return
        if time.monotonic() > until:
            sys.exit(f"{url} shows no metrics")
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
