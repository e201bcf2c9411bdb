"""alerts-svc: takes alerts over gRPC. Its version is the one argument, as it would be the tag of an image."""
import os, sys
from concurrent.futures import ThreadPoolExecutor
import grpc, alerts_pb2, alerts_pb2_grpc

class Alert(alerts_pb2_grpc.AlertServicer):
    def __init__(self, version):
        self.version, self.texts = version, []

    def Push(self, request, context):
        self.texts.append(request.text)
        print(f"SMS from {self.version}: {request.text}", flush=True)
        return alerts_pb2.Receipt()

    def Sent(self, request, context):
        return alerts_pb2.SentReply(version=self.version, texts=self.texts)

server = grpc.server(ThreadPoolExecutor(4))
alerts_pb2_grpc.add_AlertServicer_to_server(Alert(sys.argv[1]), server)
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
