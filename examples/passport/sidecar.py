"""The mini sidecar of the passport story: one function to call a service by its name."""
import os, time, urllib.error, urllib.request
from registry import lookup

def call(service, path="/", retries=3):
    if "HMS_SERVICE" in os.environ:  # in the mesh: the real sidecar looks up, encrypts and retries
        return get(f"http://{service}{path}", timeout=15)
    for i in range(retries):
        target = lookup(service)
        if not target:
            raise RuntimeError("No such service")
        try:
            return get(f"http://{target['host']}:{target['port']}{path}", timeout=1)
        except OSError:
            if i == retries - 1: raise
            time.sleep(0.2)  # quick back-off

def get(url, timeout):
    try:
        return urllib.request.urlopen(url, timeout=timeout).read().decode()
    except urllib.error.HTTPError as answer:  # an answer as well, as in the story
        if answer.headers.get("x-hms-error") == "HMS-3403":
            raise RuntimeError("No such service") from None
        return answer.read().decode()
