from service import serve
from sidecar import call

def check():
    return "photo accepted, fee " + call("fee-payment", "/pay") + ", passport " + call("delivery-tracker", "/track")

serve("photo-check", {"/health": lambda: "OK", "/check": check})
