"""report-svc: the situation report, drafted from the readings and from the alerts that went out."""
import json, urllib.request
import grpc, alerts_pb2, alerts_pb2_grpc
from service import serve

def answer(method, path, body):
    if path != "/report":
        return 404, {"error": "nothing here"}
    with urllib.request.urlopen("http://radiation-svc/readings") as found:
        readings = json.load(found)
    with grpc.insecure_channel("alerts-svc.mesh:50051") as channel:
        sent = alerts_pb2_grpc.AlertStub(channel).Sent(alerts_pb2.SentRequest())
    return 200, {"readings": readings, "alerts": list(sent.texts), "sent by": f"alerts-svc {sent.version}"}

serve(answer)
