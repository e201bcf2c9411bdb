"""radiation-svc: sensor readings near bases, in microsieverts per hour. A spike is an alert."""
from service import serve
from radiation_svc.client import send_alert

SPIKE = 5.0
readings = {}

def answer(method, path, body):
    _, folder, *rest = path.split("/")
    if folder != "readings":
        return 404, {"error": "nothing here"}
    if method == "GET":
        return 200, readings
    base, value = rest[0], float(body)
    readings[base] = value
    if value > SPIKE:
        send_alert(f"radiation spike in {base}: {value}")
    return 200, {"base": base, "reading": value, "alert": value > SPIKE}

serve(answer)
