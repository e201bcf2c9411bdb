// What the three services have in common: JSON over HTTP/1.1, answered by functions, on 127.0.0.1:$PORT.
import { createServer } from 'node:http';

export class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

type Answer = (body: Buffer, parameter: string) => unknown;

const MOST_BYTES = 10 * 1024 * 1024;

// `answers` names each by method and path; a path that ends in `/` takes one more segment as its parameter.
export function serve(answers: Record<string, Answer>) {
  const server = createServer(async (request, response) => {
    let status = 200;
    let answer: unknown;
    try {
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of request) {
        bytes += chunk.length;
        if (bytes > MOST_BYTES) throw new Refused(413, `at most ${MOST_BYTES} bytes`);
        chunks.push(chunk);
      }
      const path = request.url ?? '/';
      const last = path.lastIndexOf('/') + 1;
      const found = answers[`${request.method} ${path}`] ?? answers[`${request.method} ${path.slice(0, last)}`];
      if (!found) throw new Refused(404, 'nothing here');
      answer = await found(Buffer.concat(chunks), path.slice(last));
    } catch (error) {
      // Anything that is no refusal of ours came from a service behind this one.
      status = error instanceof Refused ? error.status : 502;
      answer = { error: String(error instanceof Error ? error.message : error) };
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer) + '\n');
  });
  server.listen(Number(process.env.PORT), '127.0.0.1');
}

// The grant that a body names, whatever its content type says: fetch and curl -d disagree about that.
export function grantId(body: Buffer): string {
  let id: unknown;
  try {
    id = JSON.parse(body.toString()).grantId;
  } catch {
    throw new Refused(400, 'the body is no JSON');
  }
  if (typeof id !== 'string' || id === '') throw new Refused(400, 'grantId is missing');
  return id;
}
