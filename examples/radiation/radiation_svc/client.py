# radiation_svc/client.py  (≤10 lines)
import grpc, alerts_pb2, alerts_pb2_grpc

def send_alert(msg):
    # Mesh injects certificates + routing, we just dial the Mesh DNS
    channel = grpc.insecure_channel("alerts-svc.mesh:50051")
    stub = alerts_pb2_grpc.AlertStub(channel)
    stub.Push(alerts_pb2.AlertMessage(text=msg))
