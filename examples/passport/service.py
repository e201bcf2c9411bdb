"""What both services have in common: GET requests answered by functions, on 127.0.0.1:$PORT."""
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from registry import register

def serve(name, answers):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answer = answers.get(self.path)
            body = (answer() if answer else "nothing here").encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ["PORT"])
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if "HMS_SERVICE" not in os.environ:  # in the mesh the sidecar does it
        register(name, "127.0.0.1", port)
    server.serve_forever()
