// Disbursements. Every execution of a payment is counted, so that one too many would be seen.
import { grantId, serve } from '../../service.ts';

const paid = new Map<string, number>();

serve({
  'POST /pay': (body) => {
    const id = grantId(body);
    paid.set(id, (paid.get(id) ?? 0) + 1);
    return { grantId: id, status: 'paid' };
  },
  'GET /payments/': (_body, id) => ({ grantId: id, payments: paid.get(id) ?? 0 }),
});
