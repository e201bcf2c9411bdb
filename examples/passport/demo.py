from registry import register
from sidecar import call

# Where the two services of this folder run; in the story these were 10.0.0.7 and 10.0.0.8.
register("photo-check", "127.0.0.1", 5000)
register("fee-payment", "127.0.0.1", 6000)

print(call("fee-payment", "/health"))
