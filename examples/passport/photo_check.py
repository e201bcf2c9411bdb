from service import serve
from sidecar import call

serve("photo-check", {"/health": lambda: "OK", "/check": lambda: "photo accepted, fee " + call("fee-payment", "/pay")})
