// grant-svc/src/pay.ts  (10 lines)
import fetch from 'node-fetch';

export async function pay(id: string){
  const res = await fetch('http://payment-svc/pay', {
    method: 'POST',
    body: JSON.stringify({grantId: id})
  });
  return res.json();
}
