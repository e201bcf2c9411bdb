// Blueprints of utility lines, known by what is in them.
import { createHash } from 'node:crypto';
import { Refused, serve } from '../../service.ts';

const blueprints = new Map<string, Buffer>();

serve({
  'POST /blueprints': (body) => {
    const id = createHash('sha256').update(body).digest('hex').slice(0, 12);
    blueprints.set(id, body);
    return { blueprint: id, bytes: body.length };
  },
  'GET /blueprints/': (_body, id) => {
    const found = blueprints.get(id);
    if (!found) throw new Refused(404, 'no such blueprint');
    return { blueprint: id, bytes: found.length };
  },
});
