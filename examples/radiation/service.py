"""What the two HTTP services have in common: JSON answered by a function of method, path and body, on 127.0.0.1:$PORT."""
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def serve(answer):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            try:
                status, found = answer(self.command, self.path, body)
            except Exception as error:  # of a service behind this one
                status, found = 502, {"error": str(error)}
            text = (json.dumps(found) + "\n").encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = reply

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
