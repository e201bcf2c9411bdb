// What the three services have in common: GET requests answered in JSON by functions, on 127.0.0.1:$PORT.
const { createServer } = require('http');

function serve(answers) {
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const found = request.method === 'GET' && answers[url.pathname];
    let status = found ? 200 : 404;
    let answer = { error: 'nothing here' };
    try {
      if (found) answer = await found(url.searchParams);
    } catch (error) {
      // Only a call to another service can fail here.
      [status, answer] = [502, { error: error.message }];
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer) + '\n');
  });
  server.listen(Number(process.env.PORT), '127.0.0.1');
}

module.exports = { serve };
